/* lastknown.c - what the segments in shared memory say of runs when there is no freezerd to ask. */
#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/human.h"
#include "client/ctl/lastknown.h"
#include "daemon/rules/explain.h"
#include "daemon/rules/planner.h"
#include "protocol/mask.h"
#include "protocol/segment.h"

/* Where glibc keeps what shm_open() makes; there is no call that lists it. */
#define SHM_FOLDER "/dev/shm"
#define NAMES_MAX 8

/* The furthest that any rank has come, and how many ranks still live. */
static unsigned read_ranks(const fz_segment *segment, uint32_t world, uint64_t *ret_step, uint64_t *ret_epoch) {
  unsigned alive = 0;
  for (uint32_t rank = 0; rank < world; rank++) {
    const struct fz_rank_line line = fz_rank_read(segment, rank);
    if (line.pid == 0)
      continue;
    alive += kill((pid_t)line.pid, 0) == 0 || errno == EPERM;
    if (line.step != FZ_TIME_NEVER && line.step >= *ret_step) {
      *ret_step = line.step;
      *ret_epoch = line.epoch != FZ_TIME_NEVER ? line.epoch : 0;
    }
  }
  return alive;
}

/* What was frozen under the newest plan; nothing when there was none yet. */
static void print_plan(const fz_segment *segment, const fz_params *params, uint64_t step, uint64_t epoch) {
  fz_plan plan = FZ_PLAN_NULL;
  uint64_t started, gen;
  const size_t n = fz_params_count(params);
  uint64_t *frozen = calloc(fz_mask_words(n) + 1, sizeof(uint64_t));

  fz_gate_read(segment, &started, &gen);
  if (frozen && fz_plan_reserve(&plan, segment) == 0 && gen > 0 && fz_segment_read_plan(segment, gen, &plan) == 0) {
    const uint64_t *mask = fz_plan_mask(&plan, fz_plan_row_at(plan.rows, plan.n_rows, step, epoch));
    const uint64_t trains = fz_mask_elements(params, mask), elements = fz_params_elements(params);
    for (size_t i = 0; i < n; i++)
      fz_mask_put(frozen, i, !fz_mask_get(mask, i));
    char *names = fz_mask_describe(params, frozen, NAMES_MAX);
    char *safe = names ? fz_escape(names) : NULL;
    printf("  Trainable  %s of %s (%s) at gen %s\n", fz_count(trains).text, fz_count(elements).text,
           fz_percent(trains, elements).text, fz_number(gen).text);
    if (safe && *safe)
      printf("  Frozen     %s\n", safe);
    free(names);
    free(safe);
  }
  fz_plan_deinit(&plan);
  free(frozen);
}

static void print_segment(const fz_ctl *ctl, const char *name, const char *run) {
  fz_segment *segment = NULL;
  fz_params *params = NULL;
  uint64_t step = 0, epoch = 0;

  if (fz_segment_peek(&segment, name) < 0)
    return;
  const fz_segment_info *info = fz_segment_get_info(segment);
  if ((!run || strcmp(run, info->run) == 0) && fz_segment_params(segment, &params) == 0) {
    const unsigned alive = read_ranks(segment, info->world, &step, &epoch);
    if (alive == 0 && !fz_given(&ctl->options, FZ_OPT_VERBOSE)) {
      fz_params_unref(params);
      fz_segment_free(segment);
      return;
    }
    char *safe_run = fz_escape(info->run), *job = fz_escape(info->job);
    printf("%s %s  job %s  last known: step %s, %u/%u ranks alive\n", ctl->style.unicode ? "○" : "?",
           safe_run ? safe_run : "", job ? job : "", fz_number(step).text, alive, info->world);
    print_plan(segment, params, step, epoch);
    free(safe_run);
    free(job);
    fz_params_unref(params);
  }
  fz_segment_free(segment);
}

void fz_last_known_print(const fz_ctl *ctl, const char *run) {
  char prefix[64], name[FZ_SEGMENT_NAME_MAX + 2];
  DIR *folder = opendir(SHM_FOLDER);

  if (!folder)
    return;
  snprintf(prefix, sizeof(prefix), "freezer.%lu.", (unsigned long)getuid());
  for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
    if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
      continue;
    snprintf(name, sizeof(name), "/%s", entry->d_name);
    print_segment(ctl, name, run);
  }
  closedir(folder);
}
