// SPDX-License-Identifier: Apache-2.0
//
// Standard output, for all verbs at once: what could not be written is an error.
#ifndef FAULTLINE_TOOLS_CLI_OUTPUT_H
#define FAULTLINE_TOOLS_CLI_OUTPUT_H

// Call it before any file is opened. A standard stream that is closed would else be the number of
// the next file, and what is printed would go there.
void output_begin(void);
// Writes what is left in the buffer. Returns the exit status of the process: `status`, or
// EXIT_FAILED after a sentence if that was EXIT_DONE and not all of the output was written. verb:
// what the user has called, or NULL.
int output_end(const char *verb, int status);

#endif
