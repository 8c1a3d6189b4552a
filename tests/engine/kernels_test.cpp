// Every instruction set that was compiled and can run here, against plain loops in double.
#include "engine/kernels.h"

#include <algorithm>
#include <cmath>
#include <iostream>

#include "base/random.h"
#include "engine/buffer.h"
#include "support.h"

namespace graft::engine {
namespace {

Buffer random_buffer(size_t floats, uint64_t seed) {
  Buffer buffer(floats);
  Random random(seed);
  for (size_t i = 0; i < floats; ++i) buffer.data()[i] = static_cast<float>(random.normal());
  return buffer;
}

class EveryTarget : public ::testing::Test {
 protected:
  static void for_each(const std::function<void(const Kernels&)>& body) {
    const KernelTargets targets = kernel_targets();
    ASSERT_FALSE(targets.usable.empty());
    for (const std::string& name : targets.skipped)
      std::cout << "SKIPPED: " << name << " was compiled, but this processor cannot run it\n";
    for (const Kernels* kernels : targets.usable) {
      SCOPED_TRACE(kernels->target);
      body(*kernels);
    }
  }
};

TEST_F(EveryTarget, Multiply) {
  for_each([](const Kernels& k) {
    const int block = k.block, mr = k.mr, nr = k.nr;
    for (const size_t blocks : {size_t{1}, size_t{2}, size_t{7}, size_t{16}})
      for (const bool accumulate : {false, true})
        for (const int spread : {0, 1, 2, 4, 8})
          for (int rows = 1; rows <= mr; ++rows)
            for (const int columns : {block, nr}) {
              const Buffer a = random_buffer(blocks * mr * block, 1);
              const Buffer b = random_buffer(blocks * block * nr, 2);
              const Buffer c = random_buffer(mr * nr, 3);
              std::vector<double> want(mr * nr);
              for (int t = 0; t < mr; ++t)
                for (int o = 0; o < nr; ++o) {
                  double sum = accumulate ? c.data()[t * nr + o] : 0.0;
                  for (size_t i = 0; i < blocks * block; ++i)
                    sum += double{a.data()[i / block * mr * block + t * block + i % block]} *
                           b.data()[i * nr + o];
                  want[t * nr + o] = sum;
                }
              k.multiply(a.data(), b.data(), c.data(), rows, columns, blocks, accumulate, b.data(),
                         spread);
              // At most 256 terms of size about 1, each rounded by at most 6e-8 of the running sum.
              for (int i = 0; i < rows * nr; ++i)
                if (i % nr < columns) {
                  ASSERT_NEAR(c.data()[i], want[i], 1e-4);
                }
            }
  });
}

/// Convolves one tile of one channel by the Winograd kernels with a kernel that picks a tap: with g
/// = a delta at (r, s), G g Gᵀ is rank one and the result must be the shifted input.
TEST_F(EveryTarget, TransformsShiftTheirInput) {
  // Rows of G as in convolution.cpp, restated.
  const double g4[6][3] = {{.25, 0, 0},
                           {-1 / 6., -1 / 6., -1 / 6.},
                           {-1 / 6., 1 / 6., -1 / 6.},
                           {1 / 24., 1 / 12., 1 / 6.},
                           {1 / 24., -1 / 12., 1 / 6.},
                           {0, 0, 1}};
  const double g6[8][3] = {{1, 0, 0},
                           {-2 / 9., -2 / 9., -2 / 9.},
                           {-2 / 9., 2 / 9., -2 / 9.},
                           {1 / 90., 1 / 45., 2 / 45.},
                           {1 / 90., -1 / 45., 2 / 45.},
                           {1 / 45., 1 / 90., 1 / 180.},
                           {1 / 45., -1 / 90., 1 / 180.},
                           {0, 0, 1}};
  const double g2[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
  for_each([&](const Kernels& k) {
    const int block = k.block, nr = k.nr;
    for (const int m : {2, 4, 6})
      for (const int mc : {2, 4, 6})
        for (int tap = 0; tap < 9; ++tap)
          for (const bool pool : {false, true}) {
            const TileSize size{m, mc};
            const int n = mc + 2;  // pixels in a row of the input
            const auto pixels = static_cast<size_t>(size.frequencies());
            const Buffer in = random_buffer(pixels * block, 4);
            const Buffer v(pixels * nr);
            k.transform_input(size, in.data(), n * block, v.data(), nr, in.data());
            for (int f = 0; f < size.frequencies(); ++f) {
              const auto g = [&](int of, int i, int j) {
                return of == 2 ? g2[i][j] : of == 4 ? g4[i][j] : g6[i][j];
              };
              const double u = g(m, f / n, tap / 3) * g(mc, f % n, tap % 3);
              for (int c = 0; c < block; ++c)
                v.data()[f * nr + c] = static_cast<float>(v.data()[f * nr + c] * u);
            }
            const Buffer bias = random_buffer(block, 5);
            for (const bool relu : {false, true})
              for (const auto& [down, across] : {std::pair{m, mc}, std::pair{m - 1, mc},
                                                 std::pair{m, mc - 1}, std::pair{1, 1}}) {
                const int shrink = pool ? 2 : 1;
                const int columns = mc / shrink;
                const Buffer out(static_cast<size_t>(m / shrink) * columns * block);
                std::fill_n(out.data(), out.size(), -77.0F);
                k.transform_output(size, v.data(), nr, bias.data(), relu, pool,
                                   {out.data(), columns * block, down, across});
                const auto value = [&](int y, int x, int c) {
                  const double sum =
                      double{in.data()[((y + tap / 3) * n + x + tap % 3) * block + c]} +
                      bias.data()[c];
                  return relu ? std::max(sum, 0.0) : sum;
                };
                for (int y = 0; y < m / shrink; ++y)
                  for (int x = 0; x < columns; ++x)
                    for (int c = 0; c < block; ++c) {
                      const float got = out.data()[(y * columns + x) * block + c];
                      if (y * shrink + shrink > down || x * shrink + shrink > across) {
                        ASSERT_EQ(got, -77.0F) << "wrote outside the valid part";
                        continue;
                      }
                      double want = value(y, x, c);
                      if (pool)
                        want =
                            std::max({value(2 * y, 2 * x, c), value(2 * y, 2 * x + 1, c),
                                      value(2 * y + 1, 2 * x, c), value(2 * y + 1, 2 * x + 1, c)});
                      // F(6×6) multiplies rounding errors by up to about 100.
                      ASSERT_NEAR(got, want, 1e-4);
                    }
              }
          }
  });
}

TEST_F(EveryTarget, ConvolveRow) {
  for_each([](const Kernels& k) {
    const int block = k.block, nr = k.nr;
    for (const int channels : {1, 3, 4})
      for (const bool relu : {false, true}) {
        constexpr int kPixels = 12;
        constexpr int kRow = kPixels + 2;
        const ptrdiff_t plane = 3 * kRow;
        const Buffer in = random_buffer(static_cast<size_t>(channels * plane), 6);
        const Buffer w = random_buffer(static_cast<size_t>(channels) * 9 * nr, 7);
        const Buffer bias = random_buffer(nr, 8);
        const Buffer out0(kPixels * block);
        const Buffer out1(kPixels * block);
        k.convolve_row(in.data(), channels, plane, kRow, w.data(), bias.data(), relu, kPixels,
                       out0.data(), out1.data());
        for (int x = 0; x < kPixels; ++x)
          for (int o = 0; o < nr; ++o) {
            double want = bias.data()[o];
            for (int t = 0; t < channels * 9; ++t)
              want += double{in.data()[t / 9 * plane + t / 3 % 3 * kRow + x + t % 3]} *
                      w.data()[t * nr + o];
            if (relu) want = std::max(want, 0.0);
            const float* half = o < block ? out0.data() : out1.data();
            ASSERT_NEAR(half[x * block + o % block], want, 1e-5);
          }
      }
  });
}

}  // namespace
}  // namespace graft::engine
