// SPDX-License-Identifier: Apache-2.0
//
// How a fault ends.
#ifndef FAULTLINE_SERVE_OUTCOME_H
#define FAULTLINE_SERVE_OUTCOME_H

// What becomes of every fault that was read. There is no other.
enum fl_outcome {
    FL_INSTALLED, // its bytes are there
    FL_ZEROED,    // zeros are there
    FL_POISONED,  // the toucher gets SIGBUS
    FL_PARKED,    // waits in fl_parks, or with the whole VM for its end
};

#endif
