#include "graft/speed.h"

#include "support.h"

namespace graft {
namespace {

TEST(Machine, LimitsArePlausible) {
  const MachineLimits machine = measure_machine(1);
  EXPECT_TRUE(machine.lanes >= 1 && machine.lanes <= 64) << machine.lanes;
  // Two units of one multiply-add a cycle, at 6 GHz: what is faster was not computed.
  EXPECT_LT(machine.flops_one, 2.0 * 2 * machine.lanes * 6e9);
  EXPECT_GT(machine.flops_one, 1e8);
  EXPECT_GT(machine.bytes_all, 1e8);
}

}  // namespace
}  // namespace graft
