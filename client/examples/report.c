/* report.c - what charlm says about its steps. */
#include "config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "client/examples/hash.h"
#include "client/examples/report.h"

static uint64_t tensor_hash(const struct model *model, size_t index) {
  const struct tensor *tensor = &model->tensors[index];
  return hash_bytes(HASH_START, model->parameters + tensor->offset, tensor->elements * sizeof *model->parameters);
}

static double percent(const struct training *training, uint64_t trainable) {
  return 100 * (double)trainable / (double)training->model->elements;
}

/* A string of JSON, with its quotes. */
static void print_string(const char *text) {
  putchar('"');
  for (; *text != '\0'; text++) {
    const unsigned char byte = (unsigned char)*text;
    if (byte == '"' || byte == '\\') {
      printf("\\%c", byte);
    } else if (byte < 0x20) {
      printf("\\u%04x", byte);
    } else {
      putchar(byte);
    }
  }
  putchar('"');
}

static void print_hashes(const struct model *model) {
  printf(",\"hashes\":{");
  for (size_t i = 0; i < model->count; i++) {
    printf("%s\"%s\":\"%016" PRIx64 "\"", i == 0 ? "" : ",", model->tensors[i].name, tensor_hash(model, i));
  }
  putchar('}');
}

static void print_flags(const struct report_flags *flags) {
  printf("\"gen\":%" PRIu64 ",\"trainable\":%" PRIu64 ",\"first_trainable\":%" PRIu64, flags->generation,
         flags->trainable, flags->first_trainable);
}

void report_start(const struct report *report, const struct training *training) {
  const struct model *model = training->model;
  if (report->silent) {
    return;
  }
  if (report->json) {
    printf("{\"event\":\"start\",\"step\":%" PRIu64 ",\"ranks\":%" PRIu64 ",\"tensors\":%zu,\"elements\":%zu,"
           "\"vocabulary\":%zu}\n",
           training->step, training->settings.ranks, model->count, model->elements, training->vocabulary.size);
  } else {
    printf("%s at step %" PRIu64 ": %zu parameters in %zu tensors, %zu characters, %" PRIu64 " rank%s\n",
           training->step == 0 ? "begins" : "goes on", training->step, model->elements, model->count,
           training->vocabulary.size, training->settings.ranks, training->settings.ranks == 1 ? "" : "s");
  }
  fflush(stdout);
}

void report_change(const struct report *report, const struct training *training, const struct report_flags *flags,
                   uint64_t froze, uint64_t unfroze) {
  if (report->silent) {
    return;
  }
  if (report->json) {
    printf("{\"event\":\"change\",\"step\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"froze\":%" PRIu64 ",\"unfroze\":%" PRIu64
           ",",
           flags->step, flags->epoch, froze, unfroze);
    print_flags(flags);
    puts("}");
  } else {
    printf("step %7" PRIu64 "  froze %" PRIu64 " and unfroze %" PRIu64 " tensors (plan %" PRIu64
           "); %.1f %% of the parameters train\n",
           flags->step, froze, unfroze, flags->generation, percent(training, flags->trainable));
  }
  fflush(stdout);
}

static void print_step(const struct report *report, const struct training *training, const struct report_flags *flags) {
  const double loss = report->loss / (double)report->gathered;
  const double milliseconds = report->milliseconds / (double)report->gathered;
  if (!report->json) {
    printf("step %7" PRIu64 "  loss %.4f  %7.2f ms/step  %5.1f %% trains\n", flags->step, loss, milliseconds,
           percent(training, flags->trainable));
    return;
  }
  printf("{\"event\":\"step\",\"step\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"loss\":%.9g,\"ms\":%.3f,", flags->step,
         flags->epoch, loss, milliseconds);
  print_flags(flags);
  if (report->hashes) {
    print_hashes(training->model);
  }
  puts("}");
}

void report_step(struct report *report, const struct training *training, const struct report_flags *flags, double loss,
                 double milliseconds) {
  report->gathered++;
  report->loss += loss;
  report->milliseconds += milliseconds;
  if (flags->step % report->every != 0) {
    return;
  }
  if (!report->silent) {
    print_step(report, training, flags);
    fflush(stdout);
  }
  report->gathered = 0;
  report->loss = report->milliseconds = 0;
}

void report_save(const struct report *report, const struct training *training, const char *file) {
  if (report->silent) {
    return;
  }
  if (report->json) {
    printf("{\"event\":\"save\",\"step\":%" PRIu64 ",\"file\":", training->step);
    print_string(file);
    puts("}");
  } else {
    printf("saved %s after %" PRIu64 " steps\n", file, training->step);
  }
  fflush(stdout);
}

void report_end(const struct report *report, const struct training *training, bool by_signal) {
  if (report->silent) {
    return;
  }
  if (report->json) {
    printf("{\"event\":\"end\",\"step\":%" PRIu64 ",\"reason\":\"%s\"}\n", training->step,
           by_signal ? "signal" : "steps");
  } else {
    for (size_t i = 0; report->hashes && i < training->model->count; i++) {
      printf("%016" PRIx64 "  %s\n", tensor_hash(training->model, i), training->model->tensors[i].name);
    }
    printf("ends after %" PRIu64 " steps%s\n", training->step, by_signal ? ", told to stop" : "");
  }
  fflush(stdout);
}
