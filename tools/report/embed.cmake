# SPDX-License-Identifier: Apache-2.0
# cmake -DOUT=FILE.c -DNAMES="css;js" -DDIR=DIR -P embed.cmake: DIR/report.NAME as the string report_NAME in C.
set(text "#include \"tools/verbs/report.h\"\n")
foreach(name ${NAMES})
    file(READ ${DIR}/report.${name} bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(REGEX REPLACE "(................................................................................)" "\\1\n"
        bytes "${bytes}")
    string(APPEND text "const char report_${name}[] = {\n${bytes}0x00};\n")
endforeach()
file(WRITE ${OUT} "${text}")
