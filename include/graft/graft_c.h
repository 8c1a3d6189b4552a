/* Graft's classifier for C, and for every language that calls C.
 *
 *   graft_classifier* pets = NULL;
 *   if (graft_load("runs/pets", NULL, &pets) != GRAFT_OK) { puts(graft_last_error()); exit(1); }
 *   graft_classify_bytes(pets, files, sizes, count, probabilities, NULL);
 *   graft_free(pets);
 *
 * Every function may be called from any number of threads at once, also with the same classifier;
 * only graft_free() must be the last call with it. Handles are opaque and structures state their
 * own size, so programs work with later versions of the library without being compiled again.
 * No C++ exception leaves the library. */
#ifndef GRAFT_C_H
#define GRAFT_C_H

/* NOLINTBEGIN(modernize-*): this is C. */

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct graft_classifier graft_classifier;

/* What a function returns; graft_last_error() has the text. Values never change their meaning. */
typedef enum graft_status {
  GRAFT_OK = 0,
  GRAFT_USAGE = 1,   /* an argument is not what it should be */
  GRAFT_INPUT = 2,   /* a file or its content is not what it should be */
  GRAFT_IO = 3,      /* reading failed */
  GRAFT_MEMORY = 4,  /* it does not fit into memory */
  GRAFT_INTERNAL = 5 /* a fault of Graft */
} graft_status;

/* What convolutions are computed with. Values never change their meaning. */
typedef enum graft_precision {
  GRAFT_FP32 = 0,
  GRAFT_BF16 = 1, /* bfloat16, sums in float32: GRAFT_USAGE on a processor that has neither AMX nor
                     AVX512_BF16 */
  GRAFT_AUTO = 2  /* GRAFT_BF16 where the processor is fast at it (AMX), else GRAFT_FP32 */
} graft_precision;

/* Set all of it with GRAFT_OPTIONS_INIT, then what differs. */
typedef struct graft_options {
  size_t size;         /* of this structure */
  int32_t threads;     /* in all; 0: all processors that the process may use */
  int32_t max_batch;   /* images computed at once, at most; 0: 16 */
  int32_t sessions;    /* batches beside each other; 0: one for each 8 threads */
  int32_t low_latency; /* not 0: an image alone is computed in the least time, with other rounding
                          than among others */
  int32_t views;       /* of each image, 1 or 2: its mirror image too, logits averaged; 0: as the
                          model says */
  int32_t precision;   /* a graft_precision, whatever the model was trained with */
} graft_options;
#define GRAFT_OPTIONS_INIT \
  { sizeof(graft_options), 0, 0, 0, 0, 0, 0 }

/* 8-bit RGB, interleaved (H, W, 3), rows from the top. The caller keeps the memory. */
typedef struct graft_pixels {
  const uint8_t* data;
  int32_t width;
  int32_t height;
  size_t row_bytes; /* from one row to the next; 0: 3 * width */
} graft_pixels;

/* "0.1.0". */
const char* graft_version(void);

/* Loads a model file, or a run folder's model.safetensors, into *classifier; NULL where it fails.
 * `path` in the file system's own bytes (UTF-8). `options`: NULL: the defaults. */
graft_status graft_load(const char* path, const graft_options* options,
                        graft_classifier** classifier);
/* NULL is allowed. */
void graft_free(graft_classifier* classifier);

/* GRAFT_FP32 or GRAFT_BF16: what GRAFT_AUTO came to. */
graft_precision graft_classifier_precision(const graft_classifier* classifier);

/* Classes, and their names (UTF-8) by index, which live as long as the classifier; NULL for an
 * index past the last. */
size_t graft_class_count(const graft_classifier* classifier);
const char* graft_class_name(const graft_classifier* classifier, size_t index);

/* Classifies `count` images. `probabilities`: count rows of graft_class_count() values, each of
 * which sums to 1.
 * `statuses`: NULL: the first image that fails ends the call, and no row counts. Else `count`
 * values: images fail one by one, their rows are zeros, GRAFT_OK is returned, and
 * graft_last_error() has the text of the first that failed. */
graft_status graft_classify_pixels(const graft_classifier* classifier, const graft_pixels* images,
                                   size_t count, float* probabilities, graft_status* statuses);
/* The same of whole image files (JPEG, PNG, WebP, HEIC, AVIF, GIF, TIFF, BMP) in memory. */
graft_status graft_classify_bytes(const graft_classifier* classifier, const void* const* files,
                                  const size_t* sizes, size_t count, float* probabilities,
                                  graft_status* statuses);

/* The same of files by their paths. */
graft_status graft_classify_files(const graft_classifier* classifier, const char* const* paths,
                                  size_t count, float* probabilities, graft_status* statuses);

/* What went wrong in this thread's last call that did, a line of UTF-8; empty where nothing did. It
 * lives until this thread's next call. */
const char* graft_last_error(void);

#ifdef __cplusplus
}
#endif

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

/* NOLINTEND(modernize-*) */

#endif
