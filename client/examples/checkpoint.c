/* checkpoint.c - saves and loads a training run. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/examples/checkpoint.h"
#include "client/examples/hash.h"

static const char magic[8] = "charlm\n";
enum { BYTE_ORDER_MARK = 0x01020304, FORMAT_VERSION = 1 };

struct header {
  char magic[8];
  uint32_t byte_order;
  uint32_t version;
  struct model_shape shape;
  uint64_t seed, ranks, epoch_steps;
  double learning_rate, weight_decay;
  uint64_t step;
  unsigned char vocabulary[256];
};
_Static_assert(sizeof(struct header) == 16 + 12 * 8 + 256, "the header has no padding");

/* A file being written or read, and the hash of what went through; the first error sticks. */
struct stream {
  FILE *file;
  uint64_t hash;
  int error;
};

static void put(struct stream *stream, const void *bytes, size_t count) {
  if (stream->error == 0 && fwrite(bytes, 1, count, stream->file) != count) {
    stream->error = errno != 0 ? -errno : -EIO;
  }
  stream->hash = hash_bytes(stream->hash, bytes, count);
}

/* Leaves zeros when the bytes are not there. */
static void get(struct stream *stream, void *bytes, size_t count) {
  if (stream->error == 0 && fread(bytes, 1, count, stream->file) != count) {
    stream->error = ferror(stream->file) && errno != 0 ? -errno : -ENODATA;
  }
  if (stream->error != 0) {
    memset(bytes, 0, count);
  }
  stream->hash = hash_bytes(stream->hash, bytes, count);
}

static void put_training(struct stream *stream, const struct training *training) {
  const struct model *model = training->model;
  struct header header = {
    .byte_order = BYTE_ORDER_MARK,
    .version = FORMAT_VERSION,
    .shape = model->shape,
    .seed = training->settings.seed,
    .ranks = training->settings.ranks,
    .epoch_steps = training->settings.epoch_steps,
    .learning_rate = training->settings.rates.learning_rate,
    .weight_decay = training->settings.rates.weight_decay,
    .step = training->step,
  };
  memcpy(header.magic, magic, sizeof magic);
  memcpy(header.vocabulary, training->vocabulary.bytes, training->vocabulary.size);
  put(stream, &header, sizeof header);
  put(stream, model->parameters, model->elements * sizeof *model->parameters);
  put(stream, training->adamw.first, model->elements * sizeof *training->adamw.first);
  put(stream, training->adamw.second, model->elements * sizeof *training->adamw.second);
  put(stream, training->adamw.steps, model->count * sizeof *training->adamw.steps);
  const uint64_t hash = stream->hash;
  put(stream, &hash, sizeof hash);
}

/* Makes a rename in the folder of `path` last. */
static int sync_folder(const char *path) {
  char *copy = strdup(path);
  if (copy == NULL) {
    return -ENOMEM;
  }
  const int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const int result = fd < 0 || fsync(fd) < 0 ? -errno : 0;
  if (fd >= 0) {
    close(fd);
  }
  free(copy);
  return result;
}

static int write_file(const char *path, const struct training *training) {
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
  if (fd < 0) {
    return -errno;
  }
  struct stream stream = { .file = fdopen(fd, "wb"), .hash = HASH_START };
  if (stream.file == NULL) {
    close(fd);
    return -ENOMEM;
  }
  put_training(&stream, training);
  if (stream.error == 0 && (fflush(stream.file) != 0 || fsync(fd) < 0)) {
    stream.error = -errno;
  }
  if (fclose(stream.file) != 0 && stream.error == 0) {
    stream.error = -errno;
  }
  return stream.error;
}

int checkpoint_save(const char *path, const struct training *training, struct problem *problem) {
  char *temporary = NULL;
  if (asprintf(&temporary, "%s.tmp", path) < 0) {
    return problem_set(problem, -ENOMEM, "no memory to save the checkpoint %s", path);
  }
  int result = write_file(temporary, training);
  if (result == 0 && rename(temporary, path) < 0) {
    result = -errno;
  }
  if (result < 0) {
    unlink(temporary);
  } else {
    result = sync_folder(path);
  }
  free(temporary);
  return result == 0 ? 0 : problem_set(problem, result, "cannot save the checkpoint %s: %s", path, strerror(-result));
}

static int refuse(struct problem *problem, const char *path, const char *why) {
  return problem_set(problem, -EINVAL, "%s is no usable checkpoint: %s", path, why);
}

/* The vocabulary must be strictly ascending, and zero behind its end. */
static bool vocabulary_is_valid(const struct header *header) {
  for (uint64_t i = 1; i < 256; i++) {
    const unsigned char byte = header->vocabulary[i];
    if (i < header->shape.vocabulary ? byte <= header->vocabulary[i - 1] : byte != 0) {
      return false;
    }
  }
  return true;
}

static int check_header(const struct header *header, const char *path, struct problem *problem) {
  if (memcmp(header->magic, magic, sizeof magic) != 0) {
    return refuse(problem, path, "it does not begin as one");
  }
  if (header->byte_order != BYTE_ORDER_MARK) {
    return refuse(problem, path, "it was written by a machine with another byte order");
  }
  if (header->version != FORMAT_VERSION) {
    return problem_set(problem, -EINVAL,
                       "%s has version %" PRIu32 " of the format, this program reads version %d: use the charlm that "
                       "wrote it",
                       path, header->version, FORMAT_VERSION);
  }
  struct problem shape = { "" };
  if (model_shape_check(&header->shape, &shape) < 0) {
    return refuse(problem, path, shape.text);
  }
  if (header->step >= STEP_LIMIT) {
    return refuse(problem, path, "its step is 2^40 or more");
  }
  if (!vocabulary_is_valid(header)) {
    return refuse(problem, path, "its vocabulary is not in order");
  }
  return 0;
}

/* Adam divides by the root of the second moment, so a negative or infinite one would spoil the run much later. */
static bool values_are_valid(const struct training *training) {
  const struct model *model = training->model;
  for (size_t i = 0; i < model->elements; i++) {
    if (!isfinite(model->parameters[i]) || !isfinite(training->adamw.first[i]) ||
        !isfinite(training->adamw.second[i]) || training->adamw.second[i] < 0) {
      return false;
    }
  }
  for (size_t i = 0; i < model->count; i++) {
    if (training->adamw.steps[i] > training->step) {
      return false;
    }
  }
  return true;
}

static int get_values(struct training *training, struct stream *stream, const char *path, struct problem *problem) {
  struct model *model = training->model;
  get(stream, model->parameters, model->elements * sizeof *model->parameters);
  get(stream, training->adamw.first, model->elements * sizeof *training->adamw.first);
  get(stream, training->adamw.second, model->elements * sizeof *training->adamw.second);
  get(stream, training->adamw.steps, model->count * sizeof *training->adamw.steps);
  const uint64_t expected = stream->hash;
  uint64_t hash;
  get(stream, &hash, sizeof hash);
  if (stream->error < 0) {
    return problem_set(problem, stream->error, "cannot read the checkpoint %s: %s", path, strerror(-stream->error));
  }
  if (hash != expected) {
    return refuse(problem, path, "its bytes are damaged (the hash at its end does not fit)");
  }
  return values_are_valid(training) ? 0 : refuse(problem, path, "it holds numbers that no run can have");
}

/* The file's size is checked before anything of the size that the header claims is allocated. */
static int check_size(const struct header *header, FILE *file, const char *path, struct problem *problem) {
  struct stat status;
  if (fstat(fileno(file), &status) < 0) {
    return problem_set(problem, -errno, "cannot read the checkpoint %s: %s", path, strerror(errno));
  }
  const uint64_t body = 3 * sizeof(float) * model_elements(&header->shape) + 8 * model_tensors(&header->shape);
  if ((uint64_t)status.st_size != sizeof *header + body + sizeof(uint64_t)) {
    return refuse(problem, path, "its size is not the one that its header names");
  }
  return 0;
}

static int load(struct training *ret, FILE *file, const char *path, struct problem *problem) {
  struct stream stream = { .file = file, .hash = HASH_START };
  struct header header;
  get(&stream, &header, sizeof header);
  if (stream.error < 0 && stream.error != -ENODATA) {
    return problem_set(problem, stream.error, "cannot read the checkpoint %s: %s", path, strerror(-stream.error));
  }
  int result = check_header(&header, path, problem);
  if (result == 0) {
    result = check_size(&header, file, path, problem);
  }
  if (result < 0) {
    return result;
  }
  const struct settings settings = {
    .seed = header.seed,
    .ranks = header.ranks,
    .epoch_steps = header.epoch_steps,
    .rates = { header.learning_rate, header.weight_decay },
  };
  struct vocabulary vocabulary = { .size = header.shape.vocabulary };
  memcpy(vocabulary.bytes, header.vocabulary, sizeof vocabulary.bytes);
  struct training training = { 0 };
  struct problem why = { "" };
  result = training_init(&training, header.shape, &settings, &vocabulary, &why);
  if (result < 0) {
    return refuse(problem, path, why.text);
  }
  training.step = header.step;
  result = get_values(&training, &stream, path, problem);
  if (result < 0) {
    training_deinit(&training);
    return result;
  }
  *ret = training;
  return 0;
}

int checkpoint_load(struct training *ret, const char *path, struct problem *problem) {
  FILE *file = fopen(path, "rbe");
  if (file == NULL) {
    return problem_set(problem, -errno, "cannot open the checkpoint %s: %s", path, strerror(errno));
  }
  const int result = load(ret, file, path, problem);
  fclose(file);
  return result;
}
