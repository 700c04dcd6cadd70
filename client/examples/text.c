/* text.c - the text to learn from. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/examples/random.h"
#include "client/examples/text.h"

enum { MAX_TEXT = 1 << 30 };

/* Reads `length` bytes; fewer only at the end of the file. Returns their number or a negative errno value. */
static ssize_t read_fully(int fd, unsigned char *bytes, size_t length) {
  size_t done = 0;
  while (done < length) {
    ssize_t got = read(fd, bytes + done, length - done);
    if (got < 0 && errno != EINTR) {
      return -errno;
    }
    if (got == 0) {
      break;
    }
    done += got > 0 ? (size_t)got : 0;
  }
  return (ssize_t)done;
}

static int read_text(struct text *ret, int fd, const char *path, struct problem *problem) {
  struct stat status;
  if (fd < 0 || fstat(fd, &status) < 0) {
    return problem_set(problem, -errno, "cannot read the text %s: %s; name one with --text FILE", path,
                       strerror(errno));
  }
  if (!S_ISREG(status.st_mode) || status.st_size == 0 || status.st_size > MAX_TEXT) {
    return problem_set(problem, -EINVAL, "the text %s %s; name another with --text FILE", path,
                       !S_ISREG(status.st_mode) ? "is not a regular file"
                       : status.st_size == 0    ? "is empty"
                                                : "is longer than 1 GiB");
  }
  struct text text = { .tokens = malloc((size_t)status.st_size) };
  if (text.tokens == NULL) {
    return problem_set(problem, -ENOMEM, "no memory for the text %s", path);
  }
  const ssize_t got = read_fully(fd, text.tokens, (size_t)status.st_size);
  if (got <= 0) {
    text_deinit(&text);
    return problem_set(problem, got < 0 ? (int)got : -EIO, "cannot read the text %s: %s", path,
                       got < 0 ? strerror((int)-got) : "it became empty");
  }
  text.length = (size_t)got;
  *ret = text;
  return 0;
}

static void collect(struct vocabulary *vocabulary, const struct text *text) {
  unsigned char seen[256] = { 0 };
  for (size_t i = 0; i < text->length; i++) {
    seen[text->tokens[i]] = 1;
  }
  for (unsigned byte = 0; byte < 256; byte++) {
    if (seen[byte]) {
      vocabulary->bytes[vocabulary->size++] = (unsigned char)byte;
    }
  }
}

/* Replaces bytes by tokens. */
static int encode(struct text *text, const struct vocabulary *vocabulary, const char *path, struct problem *problem) {
  int token_of[256];
  for (size_t byte = 0; byte < 256; byte++) {
    token_of[byte] = -1;
  }
  for (size_t token = 0; token < vocabulary->size; token++) {
    token_of[vocabulary->bytes[token]] = (int)token;
  }
  for (size_t i = 0; i < text->length; i++) {
    const int token = token_of[text->tokens[i]];
    if (token < 0) {
      return problem_set(problem, -EINVAL,
                         "byte 0x%02x at offset %zu of %s is not among the %zu characters that the model knows; "
                         "go on with the text it was trained on",
                         text->tokens[i], i, path, vocabulary->size);
    }
    text->tokens[i] = (unsigned char)token;
  }
  return 0;
}

int text_load(struct text *ret, struct vocabulary *vocabulary, const char *path, struct problem *problem) {
  struct text text = { 0 };
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  int result = read_text(&text, fd, path, problem);
  if (fd >= 0) {
    close(fd);
  }
  if (result < 0) {
    return result;
  }
  struct vocabulary known = *vocabulary;
  if (known.size == 0) {
    collect(&known, &text);
  }
  result = encode(&text, &known, path, problem);
  if (result < 0) {
    text_deinit(&text);
    return result;
  }
  *vocabulary = known;
  *ret = text;
  return 0;
}

void text_deinit(struct text *text) {
  free(text->tokens);
  *text = (struct text){ 0 };
}

void text_batch(unsigned char *tokens, unsigned char *targets, const struct text *text, struct batch_place place,
                size_t batch, size_t context) {
  /* The stream is the step's; within it the ranks' sequences follow each other. Streams of parameters are small. */
  const uint64_t stream = place.step + (UINT64_C(1) << 32);
  for (size_t i = 0; i < batch; i++) {
    const uint64_t start = random_bits(place.seed, stream, place.rank * batch + i) % (text->length - context);
    memcpy(tokens + i * context, text->tokens + start, context);
    memcpy(targets + i * context, text->tokens + start + 1, context);
  }
}
