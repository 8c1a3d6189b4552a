/* Classifies image files with a trained model, in C, a line each.
 *
 *   example_classify_c MODEL IMAGE ... */
#include <stdio.h>
#include <stdlib.h>

#include "graft/graft_c.h"

/* The whole file, to be freed; NULL where it cannot be read. */
static void* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) return NULL;
  char* bytes = NULL;
  *size = 0;
  for (size_t room = 0;;) {
    if (*size == room) {
      char* larger = realloc(bytes, room = room == 0 ? 1 << 16 : 2 * room);
      if (larger == NULL) break;
      bytes = larger;
    }
    const size_t got = fread(bytes + *size, 1, room - *size, file);
    if (got == 0) {
      if (ferror(file)) break;
      fclose(file);
      return bytes;
    }
    *size += got;
  }
  fclose(file);
  free(bytes);
  return NULL;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: example_classify_c MODEL IMAGE ...\n");
    return 2;
  }
  graft_classifier* classifier = NULL;
  if (graft_load(argv[1], NULL, &classifier) != GRAFT_OK) {
    fprintf(stderr, "example_classify_c: %s\n", graft_last_error());
    return 1;
  }
  const size_t classes = graft_class_count(classifier);
  float* probabilities = malloc(classes * sizeof *probabilities);
  int code = probabilities == NULL;
  for (int i = 2; i < argc && probabilities != NULL; ++i) {
    size_t size = 0;
    void* file = read_file(argv[i], &size);
    const void* files[] = {file};
    if (file == NULL) {
      fprintf(stderr, "example_classify_c: %s: cannot be read\n", argv[i]);
      code = 1;
    } else if (graft_classify_bytes(classifier, files, &size, 1, probabilities, NULL) != GRAFT_OK) {
      fprintf(stderr, "example_classify_c: %s: %s\n", argv[i], graft_last_error());
      code = 1;
    } else {
      size_t best = 0;
      for (size_t k = 1; k < classes; ++k)
        if (probabilities[k] > probabilities[best]) best = k;
      printf("%s: %s %.4f\n", argv[i], graft_class_name(classifier, best),
             (double)probabilities[best]);
    }
    free(file);
  }
  free(probabilities);
  graft_free(classifier);
  return code;
}
