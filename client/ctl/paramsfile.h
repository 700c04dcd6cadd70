/* paramsfile.h - reads a file of parameters: one a line, NAME [ELEMENTS [0|1]]. */
#ifndef FZ_CTL_PARAMSFILE_H
#define FZ_CTL_PARAMSFILE_H

#include "client/ctl/ctl.h"
#include "protocol/params.h"

/**
 * Reads and seals the parameters of a file ("-": standard input). Without them an element count is 1 and the flag 1.
 * @return 0; else the exit status, and what is wrong has been said with its line
 */
int fz_params_read(const fz_ctl *ctl, const char *path, fz_params **ret_params);

#endif
