#include "graft/speed.h"

#include "support.h"

namespace graft {
namespace {

TEST(Machine, LimitsArePlausible) {
  const MachineLimits machine = measure_machine(1);
  ASSERT_NE(machine.peak(instruction_set()), nullptr);
  EXPECT_EQ(machine.peak("abacus"), nullptr);
  for (const Peak& peak : machine.peaks) {
    // Two units of one multiply-add a cycle, at 6 GHz: what is faster was not computed. A product
    // of AMX's tiles takes 16 cycles.
    const double most = peak.instructions == "amx" ? 2.0 * 16 * 16 * 32 / 16 : 2.0 * 2 * peak.lanes;
    EXPECT_LT(peak.flops_one, most * 6e9) << peak.instructions;
    EXPECT_GT(peak.flops_one, 1e8) << peak.instructions;
  }
  EXPECT_GT(machine.bytes_all, 1e8);
}

}  // namespace
}  // namespace graft
