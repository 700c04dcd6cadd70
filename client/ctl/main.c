/* main.c - freezerctl: looks into training runs and changes what they freeze. */
#include "config.h"

#include <locale.h>

#include "client/ctl/ctl.h"

int main(int argc, char **argv) {
  /* Characters only: a decimal comma would break JSON. */
  setlocale(LC_CTYPE, "");
  return fz_ctl_main(argc, argv);
}
