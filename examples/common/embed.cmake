# embed.cmake - cmake -DFROM=text -DTO=file.inc -P embed.cmake: the bytes of a text as a C initializer.
file(READ ${FROM} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${TO} "${bytes}0x00\n")
