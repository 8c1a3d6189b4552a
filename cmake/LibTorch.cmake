# LibTorch as the target graft_torch: another installation through -DTorch_DIR=…, else Debian's
# package, whose own CMake file asks for more development packages than are needed.
if(Torch_DIR)
  find_package(Torch REQUIRED)
  add_library(graft_torch INTERFACE IMPORTED)
  target_link_libraries(graft_torch INTERFACE ${TORCH_LIBRARIES})
  # LibTorch 2.x has {fmt}'s headers of another version beside its own: those of the library that is
  # linked must come first, and they alone, since Debian's LibTorch may lie beside them.
  if(TARGET fmt::fmt)
    get_target_property(FMT_INCLUDE fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/own-fmt)
    file(CREATE_LINK ${FMT_INCLUDE}/fmt ${CMAKE_BINARY_DIR}/own-fmt/fmt SYMBOLIC)
    set_property(TARGET graft_torch PROPERTY INTERFACE_COMPILE_OPTIONS -I${CMAKE_BINARY_DIR}/own-fmt)
  endif()
else()
  find_path(TORCH_API_INCLUDE torch/torch.h PATH_SUFFIXES torch/csrc/api/include)
  find_library(TORCH_LIBRARY torch)
  find_library(TORCH_CPU_LIBRARY torch_cpu)
  find_library(C10_LIBRARY c10)
  if(TORCH_API_INCLUDE AND TORCH_LIBRARY AND TORCH_CPU_LIBRARY AND C10_LIBRARY)
    add_library(graft_torch INTERFACE IMPORTED)
    target_include_directories(graft_torch SYSTEM INTERFACE ${TORCH_API_INCLUDE})
    target_link_libraries(graft_torch INTERFACE ${TORCH_LIBRARY} ${TORCH_CPU_LIBRARY} ${C10_LIBRARY}
                                                ${CMAKE_DL_LIBS})
  else()
    message(WARNING "LibTorch not found: building without 'graft train'")
  endif()
endif()
