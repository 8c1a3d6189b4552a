#include "engine/maps.h"

#include <algorithm>

namespace graft::engine {

void to_maps(Team::Member& member, const float* plain, const Maps& maps, int first, int count) {
  const int pixels = maps.height * maps.width;
  for (int unit = member.take(); unit < count * maps.blocks(); unit = member.take()) {
    const int n = first + unit / maps.blocks();
    const int b = unit % maps.blocks();
    for (int c = 0; c < std::min(maps.block, maps.channels - b * maps.block); ++c) {
      const float* from =
          plain + (static_cast<size_t>(n) * maps.channels + b * maps.block + c) * pixels;
      for (int y = 0; y < maps.height; ++y) {
        float* to = maps.at(n, b, y + 1, 1) + c;
        for (int x = 0; x < maps.width; ++x) to[x * maps.block] = *from++;
      }
    }
  }
}

void to_plain(Team::Member& member, const Maps& maps, float* plain, int first, int count) {
  const int pixels = maps.height * maps.width;
  for (int unit = member.take(); unit < count * maps.blocks(); unit = member.take()) {
    const int n = first + unit / maps.blocks();
    const int b = unit % maps.blocks();
    for (int c = 0; c < std::min(maps.block, maps.channels - b * maps.block); ++c) {
      float* to = plain + (static_cast<size_t>(n) * maps.channels + b * maps.block + c) * pixels;
      for (int y = 0; y < maps.height; ++y) {
        const float* from = maps.at(n, b, y + 1, 1) + c;
        for (int x = 0; x < maps.width; ++x) *to++ = from[x * maps.block];
      }
    }
  }
}

void pool(Team::Member& member, const Maps& in, const Maps& out, int first, int count) {
  const int block = in.block;
  for (int unit = member.take(); unit < count * in.blocks(); unit = member.take()) {
    const int n = first + unit / in.blocks();
    const int b = unit % in.blocks();
    for (int y = 0; y < out.height; ++y)
      for (int x = 0; x < out.width; ++x) {
        const float* a = in.at(n, b, 2 * y + 1, 2 * x + 1);
        const float* c = a + in.row();
        float* to = out.at(n, b, y + 1, x + 1);
        for (int k = 0; k < block; ++k)
          to[k] = std::max(std::max(a[k], a[k + block]), std::max(c[k], c[k + block]));
      }
  }
}

void normalise(Team::Member& member, const Affine& affine, bool relu, const Maps& in,
               const Maps& out, int first, int count) {
  const int block = in.block;
  for (int unit = member.take(); unit < count * in.blocks(); unit = member.take()) {
    const int n = first + unit / in.blocks();
    const int b = unit % in.blocks();
    float scale[kMostBlock] = {};
    float shift[kMostBlock] = {};
    for (int k = 0; k < std::min(block, in.channels - b * block); ++k) {
      scale[k] = affine.scale[b * block + k];
      shift[k] = affine.shift[b * block + k];
    }
    for (int y = 0; y < in.height; ++y) {
      const float* from = in.at(n, b, y + 1, 1);
      float* to = out.at(n, b, y + 1, 1);
      for (int i = 0; i < in.width * block; ++i) {
        const float value = from[i] * scale[i % block] + shift[i % block];
        to[i] = relu ? std::max(value, 0.0F) : value;
      }
    }
  }
}

}  // namespace graft::engine
