/* human.c - numbers, times and names as people read them. */
#include "config.h"

#include <langinfo.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

#include "client/ctl/human.h"
#include "protocol/text.h"

struct fz_short fz_count(uint64_t count) {
  struct fz_short out;
  if (count < 1000)
    snprintf(out.text, sizeof(out.text), "%u", (unsigned)count);
  else if (count < 99950)
    snprintf(out.text, sizeof(out.text), "%.1fK", (double)count / 1e3);
  else if (count < 999950000)
    snprintf(out.text, sizeof(out.text), "%.1fM", (double)count / 1e6);
  else
    snprintf(out.text, sizeof(out.text), "%.1fB", (double)count / 1e9);
  return out;
}

struct fz_short fz_number(uint64_t number) {
  struct fz_short out;
  char digits[24];
  const int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);
  size_t at = 0;
  for (int i = 0; i < n; i++) {
    if (i > 0 && (n - i) % 3 == 0)
      out.text[at++] = ',';
    out.text[at++] = digits[i];
  }
  out.text[at] = '\0';
  return out;
}

struct fz_short fz_percent(uint64_t part, uint64_t whole) {
  struct fz_short out;
  double percent = whole ? 100.0 * (double)part / (double)whole : 0.0;
  if (part < whole && percent > 99.9)
    percent = 99.9;
  else if (part > 0 && percent < 0.1)
    percent = 0.1;
  snprintf(out.text, sizeof(out.text), "%.1f %%", percent);
  return out;
}

struct fz_short fz_plural(uint64_t count, const char *noun) {
  struct fz_short out;
  snprintf(out.text, sizeof(out.text), "%.40s %.20s%s", fz_number(count).text, noun, count == 1 ? "" : "s");
  return out;
}

struct fz_short fz_duration(double milliseconds) {
  struct fz_short out;
  const double seconds = milliseconds / 1e3;
  if (milliseconds < 0.95)
    snprintf(out.text, sizeof(out.text), milliseconds < 0.095 ? "%.2f ms" : "%.1f ms", milliseconds);
  else if (milliseconds < 9.95)
    snprintf(out.text, sizeof(out.text), "%.1f ms", milliseconds);
  else if (milliseconds < 999.5)
    snprintf(out.text, sizeof(out.text), "%.0f ms", milliseconds);
  else if (seconds < 9.95)
    snprintf(out.text, sizeof(out.text), "%.1f s", seconds);
  else if (seconds < 119.5)
    snprintf(out.text, sizeof(out.text), "%.0f s", seconds);
  else if (seconds < 7200)
    snprintf(out.text, sizeof(out.text), "%u min %u s", (unsigned)(seconds / 60), (unsigned)seconds % 60);
  else
    snprintf(out.text, sizeof(out.text), "%llu h %u min", (unsigned long long)(seconds / 3600),
             (unsigned)((uint64_t)(seconds / 60) % 60));
  return out;
}

struct fz_short fz_clock(const char *rfc3339) {
  struct fz_short out;
  struct tm utc = { .tm_isdst = 0 }, local, today;
  time_t when;
  const time_t now = time(NULL);

  if (!rfc3339 || !strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &utc) || (when = timegm(&utc)) == (time_t)-1 ||
      !localtime_r(&when, &local) || !localtime_r(&now, &today)) {
    snprintf(out.text, sizeof(out.text), "-");
    return out;
  }
  const int same_day = local.tm_year == today.tm_year && local.tm_yday == today.tm_yday;
  strftime(out.text, sizeof(out.text), same_day ? "%H:%M:%S" : "%Y-%m-%d %H:%M:%S", &local);
  return out;
}

double fz_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Bytes at the start of `text` that are printable ASCII: most of all text, which needs no closer look. */
static size_t plain_bytes(const char *text) {
  size_t n = 0;
  while (text[n] >= 0x20 && text[n] < 0x7f)
    n++;
  return n;
}

/* Bytes of the valid UTF-8 character at `text` without control characters, 0 if there is none. */
static size_t clean_bytes(const char *text) {
  for (size_t n = 1; n <= 4; n++) {
    if (text[n - 1] == '\0')
      return 0;
    if (fz_text_is_clean(text, n))
      return n;
  }
  return 0;
}

static char *escape(const char *text, bool ascii) {
  char *out = malloc(4 * strlen(text) + 1);
  size_t at = 0;
  if (!out)
    return NULL;
  while (*text) {
    const size_t plain = plain_bytes(text);
    const size_t n = plain || ascii ? plain : clean_bytes(text);
    if (n == 0) {
      at += (size_t)sprintf(out + at, "\\x%02x", (unsigned char)*text++);
      continue;
    }
    memcpy(out + at, text, n);
    at += n;
    text += n;
  }
  out[at] = '\0';
  return out;
}

char *fz_escape(const char *text) { return escape(text, false); }

char *fz_escape_to_ascii(const char *text) { return escape(text, true); }

/* The next character of a text: its bytes in *ret_bytes, its columns as result. What the locale cannot read is a byte. */
static size_t character_width(const char *text, size_t *ret_bytes) {
  mbstate_t state;
  wchar_t wide;
  memset(&state, 0, sizeof(state));
  const size_t n = mbrtowc(&wide, text, strlen(text), &state);
  if (n == 0 || n == (size_t)-1 || n == (size_t)-2) {
    *ret_bytes = 1;
    return 1;
  }
  const int width = wcwidth(wide);
  *ret_bytes = n;
  return width < 0 ? 1 : (size_t)width;
}

size_t fz_width(const char *text) {
  size_t width = 0, bytes;
  for (; *text; text += bytes) {
    bytes = plain_bytes(text);
    width += bytes ? bytes : character_width(text, &bytes);
  }
  return width;
}

/* Bytes of the longest start of `text` that takes at most `width` columns. */
static size_t bytes_for(const char *text, size_t width) {
  size_t at = 0, bytes;
  while (text[at]) {
    const size_t columns = character_width(text + at, &bytes);
    if (columns > width)
      break;
    width -= columns;
    at += bytes;
  }
  return at;
}

char *fz_shorten(const char *text, size_t width, int middle) {
  const char *ellipsis = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? "…" : "...";
  const size_t full = fz_width(text), mark = fz_width(ellipsis);
  char *out = NULL;
  if (full <= width || width <= mark)
    return strdup(text);
  const size_t room = width - mark;
  const size_t tail = middle ? room / 2 : 0;
  const size_t head = bytes_for(text, room - tail);
  const size_t skip = bytes_for(text, full - tail);
  if (asprintf(&out, "%.*s%s%s", (int)head, text, ellipsis, text + skip) < 0)
    return NULL;
  return out;
}
