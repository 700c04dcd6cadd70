/* check_identity.c - which run and which launch a rank belongs to, by what schedulers leave in the environment. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/identity.h"
#include "tests/runner.h"

static struct fz_identity identity;

static void setup(void) {
  static const char *const variables[] = { "FREEZER_RUN",
                                           "SLURM_JOB_ID",
                                           "SLURM_STEP_ID",
                                           "SLURM_JOB_NAME",
                                           "SLURM_RESTART_COUNT",
                                           "TORCHELASTIC_RUN_ID",
                                           "PMIX_NAMESPACE",
                                           "PMI_JOBID",
                                           "OMPI_MCA_ess_base_jobid",
                                           "TORCHELASTIC_RESTART_COUNT",
                                           "KUBERNETES_SERVICE_HOST",
                                           "HOSTNAME" };
  for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
    (void)unsetenv(variables[i]);
  identity = (struct fz_identity){ .world = 1 };
}

static void set(const char *variable, const char *value) { ck_assert_int_eq(setenv(variable, value, 1), 0); }

static void find(void) {
  ck_assert_int_eq(fz_identity_run(&identity, NULL, NULL), 0);
  ck_assert_int_eq(fz_identity_launch(&identity, NULL, 0), 0);
}

START_TEST(given_wins)
{
  set("FREEZER_RUN", "from the environment");
  set("SLURM_JOB_ID", "7");
  ck_assert_int_eq(fz_identity_run(&identity, "mine", NULL), 0);
  ck_assert_str_eq(identity.run, "mine");
  ck_assert_int_eq(fz_identity_launch(&identity, "job", 4), 0);
  ck_assert_str_eq(identity.job, "job");
  ck_assert_uint_eq(identity.attempt, 4);
  ck_assert_int_eq(fz_identity_run(&identity, NULL, NULL), 0);
  ck_assert_str_eq(identity.run, "from the environment");
}
END_TEST

START_TEST(bad_names_are_refused)
{
  static char longest[FZ_RUN_NAME_MAX + 2];
  memset(longest, 'x', FZ_RUN_NAME_MAX + 1);
  ck_assert_int_eq(fz_identity_run(&identity, longest, NULL), -EINVAL);
  ck_assert_int_eq(fz_identity_run(&identity, "", NULL), -EINVAL);
  ck_assert_int_eq(fz_identity_launch(&identity, "a\tb", 0), -EINVAL);
  set("FREEZER_RUN", "\xff");
  ck_assert_int_eq(fz_identity_run(&identity, NULL, NULL), -EINVAL);
}
END_TEST

START_TEST(a_program_by_another_name)
{
  char want[64];
  (void)snprintf(want, sizeof(want), "train.py-%ld", (long)getppid());
  ck_assert_int_eq(fz_identity_run(&identity, NULL, "train.py"), 0);
  ck_assert_str_eq(identity.run, want);
  ck_assert_int_eq(fz_identity_run(&identity, "mine", "train.py"), 0);
  ck_assert_str_eq(identity.run, "mine");
}
END_TEST

START_TEST(slurm)
{
  set("SLURM_JOB_ID", "4242");
  set("SLURM_JOB_NAME", "pretrain");
  set("SLURM_STEP_ID", "0");
  set("SLURM_RESTART_COUNT", "2");
  find();
  ck_assert_str_eq(identity.run, "pretrain-4242.0");
  ck_assert_str_eq(identity.job, "slurm-4242.0");
  ck_assert_uint_eq(identity.attempt, 2);
  /* A shell in an allocation is no job: what it starts was started by hand. */
  set("SLURM_JOB_NAME", "interactive");
  find();
  ck_assert_ptr_null(strstr(identity.run, "4242"));
  ck_assert_int_eq(strncmp(identity.job, "process-", 8), 0);
}
END_TEST

START_TEST(torchrun)
{
  set("TORCHELASTIC_RUN_ID", "exp\n7");
  set("TORCHELASTIC_RESTART_COUNT", "1");
  set("SLURM_JOB_ID", "4242"); /* torchrun within SLURM restarts by itself */
  set("SLURM_JOB_NAME", "pretrain");
  find();
  ck_assert_str_eq(identity.job, "torchelastic-exp_7");
  ck_assert_uint_eq(identity.attempt, 1);
  /* Without a rendezvous id every job is called that. */
  (void)unsetenv("SLURM_JOB_ID");
  set("TORCHELASTIC_RUN_ID", "none");
  identity.world = 2;
  find();
  ck_assert_int_eq(strncmp(identity.job, "parent-", 7), 0);
}
END_TEST

START_TEST(mpi_and_pods)
{
  set("PMI_JOBID", "kvs_1");
  set("KUBERNETES_SERVICE_HOST", "10.0.0.1");
  set("HOSTNAME", "trainer-0");
  find();
  ck_assert_str_eq(identity.job, "mpi-kvs_1");
  ck_assert_str_eq(identity.run + strlen(identity.run) - 10, "-trainer-0");
}
END_TEST

START_TEST(by_hand)
{
  char expected[64];
  find();
  (void)snprintf(expected, sizeof(expected), "process-%ld.", (long)getpid());
  ck_assert_int_eq(strncmp(identity.job, expected, strlen(expected)), 0);
  ck_assert_str_ne(identity.job + strlen(expected), "0"); /* the start time */
  identity.world = 2;
  find();
  (void)snprintf(expected, sizeof(expected), "parent-%ld.", (long)getppid());
  ck_assert_int_eq(strncmp(identity.job, expected, strlen(expected)), 0);
  (void)snprintf(expected, sizeof(expected), "%s-%ld", program_invocation_short_name, (long)getppid());
  ck_assert_str_eq(identity.run, expected);
}
END_TEST

START_TEST(long_values_are_cut)
{
  char value[1000];
  memset(value, 'v', sizeof(value) - 1);
  value[sizeof(value) - 1] = '\0';
  set("TORCHELASTIC_RUN_ID", value);
  set("TORCHELASTIC_RESTART_COUNT", "-1");
  find();
  ck_assert_uint_lt(strlen(identity.job), FZ_JOB_NAME_MAX);
  ck_assert_uint_eq(identity.attempt, 0);
}
END_TEST

Suite *fz_suite(void) {
  Suite *suite = suite_create("identity");
  TCase *tcase = tcase_create("identity");
  tcase_add_checked_fixture(tcase, setup, NULL);
  tcase_add_test(tcase, given_wins);
  tcase_add_test(tcase, bad_names_are_refused);
  tcase_add_test(tcase, a_program_by_another_name);
  tcase_add_test(tcase, slurm);
  tcase_add_test(tcase, torchrun);
  tcase_add_test(tcase, mpi_and_pods);
  tcase_add_test(tcase, by_hand);
  tcase_add_test(tcase, long_values_are_cut);
  suite_add_tcase(suite, tcase);
  return suite;
}
