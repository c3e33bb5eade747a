/* The application of the tests: one command a connection, one answer. Compiled statically, alone in its image. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static void call(int out, const char *address, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(s, (struct sockaddr *)&to, sizeof to);
    struct pollfd waiting = {.fd = s, .events = POLLOUT};
    int failed = ETIMEDOUT;
    socklen_t length = sizeof failed;
    if (poll(&waiting, 1, 700) == 1) getsockopt(s, SOL_SOCKET, SO_ERROR, &failed, &length);
    dprintf(out, failed ? "no: %s\n" : "connected\n", strerror(failed));
    close(s);
}

static void tell(int out, int failed, const char *done) {
    dprintf(out, failed ? "no: %s\n" : done, strerror(errno));
}

static void answer(int out, char *line) {
    char *argument = strchr(line, ' ');
    if (argument) *argument++ = 0;
    if (!strcmp(line, "cat") && argument) {
        char data[4096];
        int file = open(argument, O_RDONLY);
        ssize_t n = file < 0 ? -1 : read(file, data, sizeof data);
        if (n < 0) dprintf(out, "no: %s\n", strerror(errno)); else write(out, data, n);
    } else if (!strcmp(line, "write") && argument) {
        int file = open(argument, O_WRONLY | O_CREAT, 0600);
        dprintf(out, file < 0 ? "no: %s\n" : "written\n", strerror(errno));
    } else if (!strcmp(line, "mount")) {
        tell(out, mount("none", "/tmp", "tmpfs", 0, ""), "mounted\n");
    } else if (!strcmp(line, "unix") && argument) {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, argument, sizeof to.sun_path - 1);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        tell(out, connect(s, (struct sockaddr *)&to, sizeof to), "connected\n");
        close(s);
    } else if (!strcmp(line, "root")) {
        tell(out, setuid(0), "root\n");
    } else if (!strcmp(line, "userns")) {
        tell(out, unshare(CLONE_NEWUSER), "entered\n");
    } else if (!strcmp(line, "device")) {
        tell(out, mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)), "made\n");
    } else if (!strcmp(line, "raw")) {
        int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
        tell(out, s < 0, "open\n");
        close(s);
    } else if (!strcmp(line, "trace")) {
        tell(out, ptrace(PTRACE_TRACEME, 0, 0, 0) < 0, "traced\n");
    } else if (!strcmp(line, "env") && argument) {
        dprintf(out, "%s\n", getenv(argument) ? getenv(argument) : "no");
    } else if (!strcmp(line, "call") && argument) {
        char *port = strchr(argument, ' ');
        *port++ = 0;
        call(out, argument, atoi(port));
    } else {
        dprintf(out, "%s %s\n", line, argument ? argument : "");
    }
}

int main(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(80)};
    if (bind(s, (struct sockaddr *)&here, sizeof here) || listen(s, 16)) { perror("listen"); return 1; }
    puts("probe listens");
    fflush(stdout);
    for (;;) {
        int c = accept(s, 0, 0);
        for (;;) {
            char line[1024];
            ssize_t n = read(c, line, sizeof line - 1);
            if (n <= 0) break;
            line[n] = 0;
            line[strcspn(line, "\r\n")] = 0;
            answer(c, line);
        }
        close(c);
    }
}
