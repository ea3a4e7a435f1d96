// SPDX-License-Identifier: Apache-2.0
//
// What every signal does to a process that VMs depend on. A signal that is sent by mistake,
// or that the kernel sends over a limit, must not end it or stop it.
//
// | signals | keeper | engine and standby of a keeper | handler |
// | TERM, INT, HUP | stop | TERM: stop; the others are ignored | stop |
// | USR1 | leaves | ignored | ignored |
// | QUIT, ABRT, SEGV, BUS, ILL, FPE, SYS, TRAP | a core | a core | a core |
// | KILL, STOP, CONT, TSTP | as always (TSTP: the engine ignores it) | | |
// | all others | ignored | ignored | ignored |
#ifndef FAULTLINE_BASE_SIGNALS_H
#define FAULTLINE_BASE_SIGNALS_H

// Before the first thread. Ignores what the table above says that every process ignores, and gives
// SIGCHLD back its default: a parent that ignored it would have the kernel collect our children.
void fl_signals_ignore(void);

#endif
