# SPDX-License-Identifier: Apache-2.0
"""Whether a profile of AppArmor allows what a program did: for kernels that have no AppArmor.

usage: fits.py PROFILE [FROM=TO...] <TRACE

TRACE is the output of `strace -f -y -e trace=%file,bind,connect`. FROM at the beginning of a path is taken for TO. Prints each
access that succeeded and that no rule of the profile allows; fails if there is one, or if nothing was looked at. It knows the
rules that our profile has: paths with globs and permissions, and deny.
"""
import re
import sys

TUNABLES = {'@{PROC}': '/proc', '@{sys}': '/sys', '@{pids}': '{self,[0-9]*}'}
CALL = re.compile(r'^\d+\s+(?:<\.\.\. )?(\w+)\((.*)\)\s+= (-?\d+)')
PATH = re.compile(r'(?:(AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"')
READS = {'readlink', 'readlinkat', 'inotify_add_watch', 'chdir'}
LOOKS = {'stat', 'lstat', 'newfstatat', 'statx', 'access', 'faccessat', 'faccessat2', 'statfs'}  # AppArmor: getattr, as r
WRITES = {'mkdir', 'mkdirat', 'rmdir', 'unlink', 'unlinkat', 'rename', 'renameat', 'renameat2', 'symlink', 'symlinkat', 'link',
          'linkat', 'chmod', 'fchmodat', 'chown', 'lchown', 'fchownat', 'truncate', 'bind', 'connect', 'mknodat'}


def pattern(glob):
    """A glob of AppArmor as a regular expression."""
    out, depth, at = '', 0, 0
    while at < len(glob):
        c = glob[at]
        if glob.startswith('**', at):
            out, at = out + '.*', at + 1
        elif c == '*':
            out += '[^/]*'
        elif c == '?':
            out += '[^/]'
        elif c == '{':
            out, depth = out + '(?:', depth + 1
        elif c == '}':
            out, depth = out + ')', depth - 1
        elif c == ',' and depth:
            out += '|'
        elif c in '[]':
            out += c
        elif c == '-' and out.rfind('[') > out.rfind(']'):
            out += c
        else:
            out += re.escape(c)
        at += 1
    return re.compile(out + r'\Z')


def rules(path):
    """(allowed, denied): each a list of pattern and permissions."""
    allowed, denied = [], []
    for line in open(path, encoding='utf-8'):
        words = line.split('#')[0].strip().rstrip(',').split()
        deny = 'deny' in words
        words = [word for word in words if word not in ('audit', 'deny', 'owner')]
        if len(words) == 2 and words[0][0] in '/@':
            glob = words[0]
            for name, value in TUNABLES.items():
                glob = glob.replace(name, value)
            (denied if deny else allowed).append((pattern(glob), words[1]))
    return allowed, denied


def accesses(line):
    """(path, permission) of each access of a line of the trace that succeeded."""
    call = CALL.match(line)
    if not call or int(call.group(3)) < 0:
        return
    name, arguments = call.group(1), call.group(2)
    if name in ('bind', 'connect') and 'AF_UNIX' not in arguments:
        return
    paths = PATH.findall(arguments)
    for directory, where, path in paths[:1] if name in READS else paths:  # readlink: what it says comes second
        if not path.startswith('/'):
            path = where + ('/' + path if path else '')
        # What has no path of its own (pipes, sockets, memfds) is not looked at by path; nor are standard streams, which are
        # the service manager's sockets where the profile is used.
        if not path.startswith('/') or path.startswith('/memfd:') or '(deleted)' in path or directory in ('0', '1', '2'):
            continue
        if name in ('open', 'openat', 'openat2'):
            yield path, 'w' if re.search(r'O_(WRONLY|RDWR|CREAT)', arguments) else 'r'
        elif name in WRITES:
            yield path, 'w'
        elif name in READS or name in LOOKS:
            yield path, 'r'
        elif name.startswith('exec'):
            yield path, 'x'
            return


def main():
    """See above."""
    allowed, denied = rules(sys.argv[1])
    places = [place.split('=', 1) for place in sys.argv[2:]]
    seen, bad = set(), set()
    for line in sys.stdin:
        for path, permission in accesses(line):
            # The kernel looks at where a link of /proc leads, and not at the link.
            if re.match(r'/proc/(self|\d+)/(fd/\d+|exe)$', path):
                continue
            for start, to in places:
                if path == start or path.startswith(start + '/'):
                    path = to + path[len(start):]
                    break
            seen.add((path, permission))
    for path, permission in seen:
        names = (path, path + '/')  # a rule for a folder ends in /
        fits = any(permission in may and glob.match(name) for glob, may in allowed for name in names)
        if not fits or any(permission in may and glob.match(path) for glob, may in denied):
            bad.add((path, permission))
    for path, permission in sorted(bad):
        print(f'not allowed: {permission} {path}')
    print(f'{len(seen)} accesses, {len(bad)} not allowed')
    sys.exit(1 if bad or len(seen) < 50 else 0)


main()
