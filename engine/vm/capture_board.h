// SPDX-License-Identifier: Apache-2.0
//
// What an engine and a process that takes a checkpoint share of one capture: the board, a memfd
// with this layout, and the buffer, a sparse memfd of image_pages pages. Both number pages of
// 4 KiB as the image does, whatever the size and the regions of the VM's memory.
//
// The engine sets `data` or `zero` of a page, then `done`, and never clears them. A page that is
// done has its bytes in the buffer if `data` is set; is zeros if `zero` is set; and else is as in
// the parent image. What was read from the buffer is punched out by the reader, which adds it to
// `consumed`. The reader writes nothing else but `hurried`, and the engine relies on nothing that
// it writes but for how far the copying may run ahead, and what it copies first.
#ifndef FAULTLINE_VM_CAPTURE_BOARD_H
#define FAULTLINE_VM_CAPTURE_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#define FL_CAPTURE_MAGIC 0x74706163746c6c66ULL // "flltcapt", little-endian
enum { FL_CAPTURE_VERSION = 2 };

// Moves: ARMING -> READY -> FREEZING -> FROZEN -> COPIED -> KEPT, and from each of them to FAILED.
enum fl_capture_phase {
    FL_CAPTURE_NONE,
    FL_CAPTURE_ARMING,   // the guest runs, and its pages are being write-protected
    FL_CAPTURE_READY,    // few are left: the VM may be paused now
    FL_CAPTURE_FREEZING, // it is paused, and what is left is being write-protected
    FL_CAPTURE_FROZEN,   // what the image will be is certain: the VM may go on
    FL_CAPTURE_COPIED,   // every page is done
    FL_CAPTURE_KEPT,     // between two captures: what is written since is known
    FL_CAPTURE_FAILED,   // all is as if there had been none
};

// FULL: all pages are copied, whatever was kept since the last capture; granted also if nothing
// was. KEEP_ARMED: writes are tracked from this capture to the next. WHILE_PAUSED: without
// write protection; FROZEN comes only when all is copied.
enum { FL_CAPTURE_FULL = 1, FL_CAPTURE_KEEP_ARMED = 2, FL_CAPTURE_WHILE_PAUSED = 4 };

enum { FL_CAPTURE_HURRIED = 512 };

struct fl_capture_board {
    uint64_t magic;
    uint32_t version;
    uint32_t page_shift;  // of the VM
    uint64_t image_pages; // of 4 KiB: the end of the last byte that a region of the VM refers to
    uint64_t total_bytes; // of this file
    uint64_t done_offset; // bitmaps of image_pages bits, in words of 64; bytes from the beginning
    uint64_t data_offset;
    uint64_t zero_offset;
    // In pages of 4 KiB. The engine's, but for the last.
    _Atomic uint64_t to_copy;  // at the freeze: pages that may differ from the parent
    _Atomic uint64_t by_fault; // with bytes, copied because the guest wrote to them
    _Atomic uint64_t by_sweep; // with bytes, copied in turn
    _Atomic uint64_t write_faults;
    _Atomic uint64_t freeze_ns; // from the order to freeze until FROZEN
    _Atomic uint64_t copy_ns;   // from FROZEN until COPIED
    _Atomic uint64_t consumed;  // the reader's: pages of the buffer that it has punched out
    _Atomic uint64_t hurried;   // the reader's: FL_CAPTURE_HURRIED pages from this one on, plus 1,
                                // are copied first; 0: none are
};

#endif
