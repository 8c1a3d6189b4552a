# ONNX's messages and checker as the target graft_onnx. Debian's own CMake file asks for parts of the
# package that are not needed.
# A Python environment's onnx has headers too, of another version than the library; building a wheel puts such
# environments among the prefixes.
set(ONNX_IGNORED ${CMAKE_IGNORE_PATH})
foreach(prefix ${CMAKE_PREFIX_PATH})
  if(EXISTS ${prefix}/onnx/__init__.py)
    list(APPEND CMAKE_IGNORE_PATH ${prefix})
  endif()
endforeach()
find_path(ONNX_INCLUDE onnx/checker.h REQUIRED)
set(CMAKE_IGNORE_PATH ${ONNX_IGNORED})
find_library(ONNX_LIBRARY onnx REQUIRED)
find_library(ONNX_PROTO_LIBRARY onnx_proto REQUIRED)
add_library(graft_onnx INTERFACE IMPORTED)
target_include_directories(graft_onnx SYSTEM INTERFACE ${ONNX_INCLUDE})
# What Debian's library was compiled with: its headers do not say it.
target_compile_definitions(graft_onnx INTERFACE ONNX_NAMESPACE=onnx ONNX_ML=1)
target_link_libraries(graft_onnx INTERFACE ${ONNX_LIBRARY} ${ONNX_PROTO_LIBRARY})
