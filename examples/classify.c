/* Classifies image files with a trained model, in C, a line each.
 *
 *   example_classify_c MODEL IMAGE ... */
#include <stdio.h>
#include <stdlib.h>

#include "graft/graft_c.h"

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
    const char* paths[] = {argv[i]};
    if (graft_classify_files(classifier, paths, 1, probabilities, NULL) != GRAFT_OK) {
      fprintf(stderr, "example_classify_c: %s\n", graft_last_error());
      code = 1;
    } else {
      size_t best = 0;
      for (size_t k = 1; k < classes; ++k)
        if (probabilities[k] > probabilities[best]) best = k;
      printf("%s: %s %.4f\n", argv[i], graft_class_name(classifier, best),
             (double)probabilities[best]);
    }
  }
  free(probabilities);
  graft_free(classifier);
  return code;
}
