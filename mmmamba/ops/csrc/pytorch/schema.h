// What the schemas of all ops have in common.
#pragma once

#include <torch/library.h>
#include <torch/version.h>

#include <vector>

namespace mmmamba {

inline std::vector<at::Tag> schema_tags() {
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 2
  return {};
#else
  return {at::Tag::pt2_compliant_tag};
#endif
}

}  // namespace mmmamba
