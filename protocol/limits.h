/* limits.h - the cap on everything that a peer can make us keep, in one place. */
#ifndef FZ_LIMITS_H
#define FZ_LIMITS_H

#include <stdint.h>

/* Numbers on the wire. */
#define FZ_STEP_MAX ((UINT64_C(1) << 40) - 2) /* highest step of a batch: step + 1 fits the gate's 40 bits */
#define FZ_EPOCH_MAX ((UINT64_C(1) << 40) - 1)
#define FZ_TIME_NEVER UINT64_MAX             /* "no such step" or "no such epoch" */
#define FZ_INT_MAX (UINT64_C(1) << 53)       /* largest other integer that JSON carries exactly */
#define FZ_GEN_MAX ((UINT64_C(1) << 24) - 1) /* the gate's 24 bits */

/* Lines and text. */
#define FZ_LINE_MAX (1024U * 1024U) /* bytes of one line, without its newline */
#define FZ_JSON_DEPTH_MAX 16U
#define FZ_PARAM_NAME_MAX 4096U /* bytes of one parameter name */
#define FZ_RUN_NAME_MAX 200U
#define FZ_JOB_NAME_MAX 200U
#define FZ_FRAMEWORK_MAX 64U
#define FZ_METRIC_NAME_MAX 128U
#define FZ_REASON_MAX 500U
#define FZ_CODE_MAX 32U /* a refusal code such as NOT_CONTROLLABLE */
#define FZ_PATTERN_MAX 4200U
#define FZ_RULE_NAME_MAX 200U

/* Per daemon. */
#define FZ_CONNECTIONS_MAX 4096U
#define FZ_RUNS_MAX 1024U
#define FZ_LISTING_BYTES_MAX (1024U * 1024U * 1024U) /* of all parameter tables that trainers have begun to send */
#define FZ_LISTING_STALL_MS (10U * 60U * 1000U)      /* without a further part of such a table; longer than any step */
#define FZ_ENDED_BYTES_MAX (256U * 1024U * 1024U)    /* of the parameter tables of runs that have ended */
#define FZ_INPUT_BYTES_MAX (256U * 1024U * 1024U)    /* of lines that all peers have begun to send */
#define FZ_OUTPUT_BYTES_MAX (256U * 1024U * 1024U)   /* that wait for all peers to read them */

/* Per run. */
#define FZ_WORLD_MAX 1024U /* ranks on one machine */
#define FZ_PARAMS_MAX (4U * 1024U * 1024U)
#define FZ_ALIASES_MAX 4096U                      /* further names of tied parameters, all together */
#define FZ_ALIASES_OF_ONE_MAX 255U                /* and those of one */
#define FZ_PARAM_BYTES_MAX (512U * 1024U * 1024U) /* all names of a run together */
#define FZ_RULES_MAX 1024U
#define FZ_PATTERNS_MAX 4096U            /* selectors of a rules document, or of one command */
#define FZ_RULES_TEXT_MAX (512U * 1024U) /* canonical JSON, so that it fits into one line with room for the rest */
#define FZ_OVERRIDES_MAX 1024U
#define FZ_PINS_MAX 1024U
#define FZ_METRICS_MAX 64U
#define FZ_RECENT_MAX 16U    /* changes that `status` remembers */
#define FZ_PENDING_MAX 1024U /* changes that wait for ranks */

/* Per connection. */
#define FZ_OUTPUT_MAX (8U * 1024U * 1024U) /* bytes queued for a peer that does not read; more and it is dropped */

/* The plan ring. */
#define FZ_PLAN_SLOTS 8U
#define FZ_PLAN_ROWS 256U
#define FZ_PLAN_MASKS_MAX 256U
#define FZ_PLAN_MASKS_MIN 4U
#define FZ_PLAN_MASK_BYTES (512U * 1024U) /* budget of one slot for its masks, above the minimum */

#endif
