#include "engine/maps.h"

#include <algorithm>

namespace graft::engine {

void to_maps(Team::Member& member, const float* plain, const Maps& maps, int first, int count) {
  const int pixels = maps.height * maps.width;
  for (int unit = member.take(); unit < count * maps.blocks(); unit = member.take()) {
    const int n = first + unit / maps.blocks();
    const int b = unit % maps.blocks();
    for (int c = 0; c < std::min(kBlock, maps.channels - b * kBlock); ++c) {
      const float* from =
          plain + (static_cast<size_t>(n) * maps.channels + b * kBlock + c) * pixels;
      for (int y = 0; y < maps.height; ++y) {
        float* to = maps.at(n, b, y + 1, 1) + c;
        for (int x = 0; x < maps.width; ++x) to[x * kBlock] = *from++;
      }
    }
  }
}

void to_plain(Team::Member& member, const Maps& maps, float* plain, int first, int count) {
  const int pixels = maps.height * maps.width;
  for (int unit = member.take(); unit < count * maps.blocks(); unit = member.take()) {
    const int n = first + unit / maps.blocks();
    const int b = unit % maps.blocks();
    for (int c = 0; c < std::min(kBlock, maps.channels - b * kBlock); ++c) {
      float* to = plain + (static_cast<size_t>(n) * maps.channels + b * kBlock + c) * pixels;
      for (int y = 0; y < maps.height; ++y) {
        const float* from = maps.at(n, b, y + 1, 1) + c;
        for (int x = 0; x < maps.width; ++x) *to++ = from[x * kBlock];
      }
    }
  }
}

void pool(Team::Member& member, const Maps& in, const Maps& out, int first, int count) {
  for (int unit = member.take(); unit < count * in.blocks(); unit = member.take()) {
    const int n = first + unit / in.blocks();
    const int b = unit % in.blocks();
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) {
        const float* a = in.at(n, b, 2 * y + 1, 2 * x + 1);
        const float* c = a + in.row();
        float* to = out.at(n, b, y + 1, x + 1);
        for (int k = 0; k < kBlock; ++k)
          to[k] = std::max(std::max(a[k], a[k + kBlock]), std::max(c[k], c[k + kBlock]));
      }
  }
}

void normalise(Team::Member& member, const Affine& affine, bool relu, const Maps& in,
               const Maps& out, int first, int count) {
  for (int unit = member.take(); unit < count * in.blocks(); unit = member.take()) {
    const int n = first + unit / in.blocks();
    const int b = unit % in.blocks();
    float scale[kBlock] = {};
    float shift[kBlock] = {};
    for (int k = 0; k < std::min(kBlock, in.channels - b * kBlock); ++k) {
      scale[k] = affine.scale[b * kBlock + k];
      shift[k] = affine.shift[b * kBlock + k];
    }
    for (int y = 0; y < in.height; ++y) {
      const float* from = in.at(n, b, y + 1, 1);
      float* to = out.at(n, b, y + 1, 1);
      for (int i = 0; i < in.width * kBlock; ++i) {
        const float value = from[i] * scale[i % kBlock] + shift[i % kBlock];
        to[i] = relu ? std::max(value, 0.0F) : value;
      }
    }
  }
}

}  // namespace graft::engine
