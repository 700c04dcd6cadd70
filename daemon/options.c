/* options.c - freezerd's command line and environment. */
#include "config.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/options.h"

enum {
  OPT_SOCKET = 256,
  OPT_SOCKET_GROUP,
  OPT_SOCKET_RO,
  OPT_STATE_DIR,
  OPT_RULES,
  OPT_LOG_LEVEL,
  OPT_LOG_FORMAT,
  OPT_READY_FD
};

static const struct option long_options[] = {
  { "socket", required_argument, NULL, OPT_SOCKET },
  { "socket-group", required_argument, NULL, OPT_SOCKET_GROUP },
  { "socket-ro", required_argument, NULL, OPT_SOCKET_RO },
  { "state-dir", required_argument, NULL, OPT_STATE_DIR },
  { "rules", required_argument, NULL, OPT_RULES },
  { "log-level", required_argument, NULL, OPT_LOG_LEVEL },
  { "log-format", required_argument, NULL, OPT_LOG_FORMAT },
  { "ready-fd", required_argument, NULL, OPT_READY_FD },
  { "version", no_argument, NULL, 'V' },
  { "help", no_argument, NULL, 'h' },
  { NULL, 0, NULL, 0 },
};

static const char help[] =
  "freezerd - freezes and unfreezes parameters of training runs while they run\n"
  "\n"
  "  freezerd                              listen at the usual place, until SIGTERM\n"
  "  freezerd --rules rules.yaml           the same, with default rules for every run\n"
  "\n"
  "Options:\n"
  "      --socket PATH       listen here [$FREEZER_SOCKET, $XDG_RUNTIME_DIR/freezer/freezerd.sock,\n"
  "                          /tmp/freezer-UID/freezerd.sock]\n"
  "      --socket-group GROUP\n"
  "                          serve the members of this group, too: the socket is 0660 and the group's\n"
  "      --socket-ro PATH    listen there as well, for those who may look and change nothing\n"
  "      --state-dir DIR     keep what must survive a restart here, none: nowhere\n"
  "                          [$FREEZER_STATE_DIR, $XDG_STATE_HOME/freezer, ~/.local/state/freezer]\n"
  "      --rules FILE        YAML or JSON rules for runs that have none of their own\n"
  "      --log-level LEVEL   error, warning, notice, info, debug [$FREEZER_LOG, info]\n"
  "      --log-format FORM   auto, human, journal, json [auto]\n"
  "      --ready-fd N        write a line to descriptor N when the socket accepts connections\n"
  "  -V, --version           print the version\n"
  "  -h, --help              print this\n"
  "\n"
  "It stays in the foreground and logs to stderr. See freezerd(8) and freezerctl(1).\n";

static int bad(FILE *err, const char *what, const char *value, const char *hint) {
  fprintf(err, "freezerd: %s '%s'\nhint: %s\n", what, value, hint);
  return FZ_OPTIONS_BAD;
}

static int read_fd(const char *text, int *ret_fd) {
  char *end;

  errno = 0;
  const long value = strtol(text, &end, 10);
  if (errno || *end || end == text || value < 0 || value > INT_MAX)
    return -EINVAL;
  *ret_fd = (int)value;
  return 0;
}

/** A name or a number, as chown(1) takes them: the name wins. */
static int read_group(const char *text, gid_t *ret_group) {
  const struct group *entry = getgrnam(text);
  char *end;

  if (entry) {
    *ret_group = entry->gr_gid;
    return 0;
  }
  errno = 0;
  const unsigned long value = strtoul(text, &end, 10);
  if (errno || *text < '0' || *text > '9' || *end || value >= FZ_NO_GROUP)
    return -EINVAL;
  *ret_group = (gid_t)value;
  return 0;
}

static int read_level(const char *text, FILE *err, fz_options *options) {
  if (fz_log_parse_level(text, &options->log_level) < 0)
    return bad(err, "no such log level", text, "error, warning, notice, info or debug");
  return 0;
}

static int read_option(int option, const char *value, FILE *out, FILE *err, fz_options *options) {
  switch (option) {
  case OPT_SOCKET:
    if (!*value)
      return bad(err, "no path for --socket:", value, "leave the option out for the usual place");
    options->socket = value;
    return 0;
  case OPT_SOCKET_GROUP:
    if (read_group(value, &options->group) < 0)
      return bad(err, "no such group", value, "--socket-group takes the name or the number of a group");
    return 0;
  case OPT_SOCKET_RO:
    if (!*value)
      return bad(err, "no path for --socket-ro:", value, "leave the option out for one socket");
    options->socket_ro = value;
    return 0;
  case OPT_STATE_DIR:
    if (!*value)
      return bad(err, "no folder for --state-dir:", value, "'none' keeps nothing");
    options->state_dir = value;
    return 0;
  case OPT_RULES:
    options->rules = value;
    return 0;
  case OPT_LOG_LEVEL:
    return read_level(value, err, options);
  case OPT_LOG_FORMAT:
    if (fz_log_parse_format(value, &options->log_format) < 0)
      return bad(err, "no such log format", value, "auto, human, journal or json");
    return 0;
  case OPT_READY_FD:
    if (read_fd(value, &options->ready_fd) < 0)
      return bad(err, "no descriptor", value, "--ready-fd takes the number of an open descriptor");
    return 0;
  case 'V':
    fprintf(out, "freezerd %s\n", PACKAGE_VERSION);
    return FZ_OPTIONS_HELP;
  case 'h':
    fputs(help, out);
    return FZ_OPTIONS_HELP;
  default: /* getopt_long said what is wrong */
    fputs("hint: 'freezerd --help' lists the options\n", err);
    return FZ_OPTIONS_BAD;
  }
}

static const char *environment(const char *name) {
  const char *value = getenv(name);

  return value && *value ? value : NULL;
}

int fz_options_parse(int argc, char **argv, FILE *out, FILE *err, fz_options *ret_options) {
  fz_options options = { .group = FZ_NO_GROUP, .log_level = FZ_LOG_INFO, .log_format = FZ_LOG_AUTO, .ready_fd = -1 };
  const char *level = environment("FREEZER_LOG");
  int option, r;

  options.state_dir = environment("FREEZER_STATE_DIR");
  r = level ? read_level(level, err, &options) : 0;
  if (r)
    return r;
  optind = 1;
  while ((option = getopt_long(argc, argv, "Vh", long_options, NULL)) != -1) {
    r = read_option(option, optarg, out, err, &options);
    if (r)
      return r;
  }
  if (optind < argc)
    return bad(err, "unexpected argument", argv[optind], "freezerd takes options only");
  if (options.state_dir && strcmp(options.state_dir, "none") == 0) {
    options.no_state = true;
    options.state_dir = NULL;
  }
  *ret_options = options;
  return 0;
}
