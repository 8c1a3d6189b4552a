// The filter that h5py calls LZF: of all that HDF5 does not bring itself, the one that people use.
#pragma once

namespace graft {

/// Makes it known to the HDF5 library, for reading alone.
void register_lzf();

}  // namespace graft
