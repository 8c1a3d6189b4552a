# What `make install` brings: programs, libraries, headers, the CMake package, pkg-config files,
# manual pages and shell completions. Included by src/CMakeLists.txt, whose targets it installs.
include(CMakePackageConfigHelpers)

install(TARGETS graft_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS graft_read_h5 graft_read_image RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/graft)
if(TARGET graft_train_program)
  install(TARGETS graft_train_program RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/graft)
endif()
install(TARGETS graft_export_program RUNTIME DESTINATION ${CMAKE_INSTALL_LIBEXECDIR}/graft)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/graft DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(PACKAGE_FOLDER ${CMAKE_INSTALL_LIBDIR}/cmake/Graft)
foreach(layer ${LAYERS})
  # A file of targets for each component and kind, so that a program needs the packages of its own
  # component alone.
  install(TARGETS graft_${layer}_shared EXPORT Graft-${layer}-shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(TARGETS graft_${layer} EXPORT Graft-${layer}-static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  install(EXPORT Graft-${layer}-shared NAMESPACE Graft:: DESTINATION ${PACKAGE_FOLDER})
  install(EXPORT Graft-${layer}-static NAMESPACE Graft:: DESTINATION ${PACKAGE_FOLDER})
endforeach()
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/GraftConfig.cmake.in
                              ${CMAKE_CURRENT_BINARY_DIR}/package/GraftConfig.cmake
                              INSTALL_DESTINATION ${PACKAGE_FOLDER})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/package/GraftConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/package/GraftConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/package/GraftConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/LibTorch.cmake
        ${PROJECT_SOURCE_DIR}/cmake/Onnx.cmake
        DESTINATION ${PACKAGE_FOLDER})

file(RELATIVE_PATH PC_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
# graft-core.pc is for the shared library, graft-core-static.pc for the static one. No Requires: the
# packages' own files would then have to be there.
set(PC_CORE_DOES "classifies images with a trained model")
set(PC_CORE_LIBS "-lstdc++ -lm -ldl -lfmt -ljpeg -lpng -lz -lcrypto -lhwy -lwebpdemux -lwebp -lexif -lxxhash -lutf8proc -pthread")
set(PC_DATA_DOES "datasets, recipes, evaluation, reports")
set(PC_DATA_LIBS "-lgraft_core -lcurl -ltomlplusplus -lzip -lxlsxwriter -larchive ${PC_CORE_LIBS}")
set(PC_EXPORT_DOES "models for other runtimes")
set(PC_EXPORT_LIBS "-lgraft_data ${PC_DATA_LIBS} -lonnx -lonnx_proto -lprotobuf -lhdf5_serial")
set(PC_TRAIN_DOES "trains classifiers")
set(PC_TRAIN_LIBS "-lgraft_export ${PC_EXPORT_LIBS} -ltorch -ltorch_cpu -lc10 -lcpp-httplib -lgomp -ldl")
foreach(layer ${LAYERS})
  string(TOUPPER ${layer} LAYER)
  set(PC_DOES ${PC_${LAYER}_DOES})
  set(PC_LIBS ${PC_${LAYER}_LIBS})
  configure_file(${PROJECT_SOURCE_DIR}/cmake/graft.pc.in ${CMAKE_CURRENT_BINARY_DIR}/package/graft-${layer}.pc @ONLY)
  set(PC_STATIC "\${libdir}/libgraft_${layer}.a ${PC_LIBS}")
  string(REPLACE "-lgraft_core" "\${libdir}/libgraft_core.a" PC_STATIC "${PC_STATIC}")
  string(REPLACE "-lgraft_data" "\${libdir}/libgraft_data.a" PC_STATIC "${PC_STATIC}")
  string(REPLACE "-lgraft_export" "\${libdir}/libgraft_export.a" PC_STATIC "${PC_STATIC}")
  configure_file(${PROJECT_SOURCE_DIR}/cmake/graft-static.pc.in
                 ${CMAKE_CURRENT_BINARY_DIR}/package/graft-${layer}-static.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/package/graft-${layer}.pc
                ${CMAKE_CURRENT_BINARY_DIR}/package/graft-${layer}-static.pc
          DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

# The recipes inside the program, to read and to begin one's own with, and the documents that they
# and the help name.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/recipes ${PROJECT_SOURCE_DIR}/docs DESTINATION ${CMAKE_INSTALL_DOCDIR})

# Manual pages and completions are printed by the program itself, from the options that it has.
set(DOCUMENTED ${CMAKE_CURRENT_BINARY_DIR}/documented)
add_custom_command(
  OUTPUT ${DOCUMENTED}/graft.bash
  COMMAND graft_program man --output ${DOCUMENTED}/man1
  COMMAND graft_program completion zsh > ${DOCUMENTED}/_graft
  COMMAND graft_program completion fish > ${DOCUMENTED}/graft.fish
  COMMAND graft_program completion bash > ${DOCUMENTED}/graft.bash
  COMMENT "Manual pages and completions"
  DEPENDS graft_program
  VERBATIM)
add_custom_target(graft_documented ALL DEPENDS ${DOCUMENTED}/graft.bash)
install(DIRECTORY ${DOCUMENTED}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
install(FILES ${DOCUMENTED}/graft.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME graft)
install(FILES ${DOCUMENTED}/_graft DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${DOCUMENTED}/graft.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
