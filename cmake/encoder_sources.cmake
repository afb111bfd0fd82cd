# cmake -DFILES=a.cc,b.cc -DLIBRARIES=... -DOUT=encoder_sources.h -P encoder_sources.cmake
# A sum of the sources that make tokens of texts and records, and of the libraries that they use: tokens that
# another version made are not read from the cache.
string(REPLACE "," ";" files "${FILES}")
list(SORT files)
set(all "${LIBRARIES}")
foreach(file ${files})
  file(SHA256 ${file} sum)
  string(APPEND all "${sum}")
endforeach()
string(SHA256 sum "${all}")
file(WRITE ${OUT}.new "#pragma once\ninline constexpr const char* kEncoderSources = \"${sum}\";\n")
execute_process(COMMAND ${CMAKE_COMMAND} -E copy_if_different ${OUT}.new ${OUT})
