/* errors.c - a sentence for each code that libfreezer returns. */
#include "config.h"

#include <errno.h>
#include <stddef.h>

#include "client/freezer.h"

static const struct {
  int code;
  const char *sentence;
} sentences[] = {
  { 0, "done" },
  { -EINVAL, "an argument is out of range, or a step or epoch went back without freezer_rewind()" },
  { -ENOMEM, "out of memory" },
  { -E2BIG, "too many parameters, or names too long" },
  { -ENOTCONN, "no freezerd is running" },
  { -ECONNREFUSED, "freezerd refused this rank" },
  { -ECONNRESET, "freezerd closed the connection" },
  { -EPIPE, "freezerd closed the connection" },
  { -ETIMEDOUT, "no plan within the attach timeout" },
  { -ENOSPC, "too many different metrics" },
  { -EBADMSG, "what freezerd sent is damaged" },
  { -EPROTO, "freezerd has another version" },
  { -EPROTOTYPE, "the ranks of this run have different parameters" },
  { -EPERM, "the segment belongs to another user, or is open to others" },
  { -EBUSY, "plans of too many incarnations are still ahead" },
  { -EAGAIN, "another process trains as this rank" },
  { -EMFILE, "this process has no file descriptors left" },
  { -ENFILE, "this machine has no file descriptors left" },
  { -EACCES, "permission denied" },
  { -ENOENT, "there is no such segment on this machine" },
};

const char *freezer_strerror(int code) {
  for (size_t i = 0; i < sizeof(sentences) / sizeof(sentences[0]); i++)
    if (sentences[i].code == code)
      return sentences[i].sentence;
  return code > 0 ? "done" : "an unexpected error of the system";
}
