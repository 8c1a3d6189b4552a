#include "cli/common.h"
namespace graft::cli { int run_demo(int, char**) { return 1; } }
