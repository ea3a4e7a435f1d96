// SPDX-License-Identifier: Apache-2.0
//
// Numbers in few columns, for the screen of `faultline top`. Each writes into buf and returns it;
// what is not known (TOP_UNKNOWN) is "-".
#ifndef FAULTLINE_TOOLS_TOP_FORMAT_H
#define FAULTLINE_TOOLS_TOP_FORMAT_H

#include <stdint.h>

enum { TOP_COLUMN = 16 };

char *top_rate(double value, char buf[TOP_COLUMN]);      // "12.3k"
char *top_us(double us, char buf[TOP_COLUMN]);           // "18us", "1.2ms", "3.4s"
char *top_bytes(uint64_t bytes, char buf[TOP_COLUMN]);   // "3.2G"
char *top_share(double share, char buf[TOP_COLUMN]);     // "97%"
char *top_seconds(double seconds, char buf[TOP_COLUMN]); // "3d 4h", "12:34"

#endif
