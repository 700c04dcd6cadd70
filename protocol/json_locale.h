/* json_locale.h - numbers of JSON have a point, whatever locale the program around us has set. */
#ifndef FZ_JSON_LOCALE_H
#define FZ_JSON_LOCALE_H

#include <locale.h>

/* What strtod() and printf() go by, for this thread alone, between the two calls below. */
struct fz_json_locale {
  locale_t plain; /* the C locale: glibc and musl keep one at hand, this neither allocates nor fails */
  locale_t before;
};

static inline struct fz_json_locale fz_json_locale_enter(void) {
  struct fz_json_locale locale = { .plain = newlocale(LC_ALL_MASK, "C", (locale_t)0) };
  locale.before = locale.plain == (locale_t)0 ? (locale_t)0 : uselocale(locale.plain);
  return locale;
}

static inline void fz_json_locale_leave(struct fz_json_locale locale) {
  if (locale.plain == (locale_t)0)
    return;
  (void)uselocale(locale.before);
  freelocale(locale.plain);
}

#endif
