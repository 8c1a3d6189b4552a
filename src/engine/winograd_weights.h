// How a 3×3 kernel becomes the weights of a Winograd convolution: G g Gᵀ. The matrices of the other
// two transforms are in winograd-inl.h, for the same points.
#pragma once

#include <array>

namespace graft::engine {

/// G of F(m×m, 3×3) for the points of winograd-inl.h; weights are transformed in double.
inline constexpr std::array<std::array<double, 3>, 4> kG2 = {
    {{1, 0, 0}, {1. / 2, 1. / 2, 1. / 2}, {1. / 2, -1. / 2, 1. / 2}, {0, 0, 1}}};
inline constexpr std::array<std::array<double, 3>, 5> kG3 = {{{1. / 2, 0, 0},
                                                              {-1. / 2, -1. / 2, -1. / 2},
                                                              {-1. / 6, 1. / 6, -1. / 6},
                                                              {1. / 6, 1. / 3, 2. / 3},
                                                              {0, 0, 1}}};
inline constexpr std::array<std::array<double, 3>, 6> kG4 = {{{1. / 4, 0, 0},
                                                              {-1. / 6, -1. / 6, -1. / 6},
                                                              {-1. / 6, 1. / 6, -1. / 6},
                                                              {1. / 24, 1. / 12, 1. / 6},
                                                              {1. / 24, -1. / 12, 1. / 6},
                                                              {0, 0, 1}}};
inline constexpr std::array<std::array<double, 3>, 8> kG6 = {{{1, 0, 0},
                                                              {-2. / 9, -2. / 9, -2. / 9},
                                                              {-2. / 9, 2. / 9, -2. / 9},
                                                              {1. / 90, 1. / 45, 2. / 45},
                                                              {1. / 90, -1. / 45, 2. / 45},
                                                              {1. / 45, 1. / 90, 1. / 180},
                                                              {1. / 45, -1. / 90, 1. / 180},
                                                              {0, 0, 1}}};

}  // namespace graft::engine
