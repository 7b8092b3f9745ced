/* Loaded before libc: a kernel that lacks the offloads named in OLD_KERNEL, or links that refuse them.
 *
 * uso: TUN before Linux 6.2 (so Debian 12's 6.1), which neither gives nor takes frames of datagrams;
 * tso: a TUN that grants nothing; segment, gro: UDP before 4.18 and 5.0;
 * link4, link6: a device without what UDP_SEGMENT needs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TUNSETOFFLOAD = 0x400454D0, USO = 0x60, SEGMENT = 103, GRO = 104 };

static int forgotten;    /* links refuse no more */
static long hurry_seconds; /* added to CLOCK_BOOTTIME */

void old_kernel_change(int forget, long seconds)
{
    forgotten = forget;
    hurry_seconds = seconds;
}

static int lacks(const char *what)
{
    const char *names = getenv("OLD_KERNEL");

    return names && strstr(names, what) != NULL;
}

static int refuse(int error)
{
    errno = error;
    return -1;
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t octets)
{
    REAL(write);

    if (octets > 58 && ((const unsigned char *)data)[1] == 5 && lacks("uso")) /* GSO_UDP_L4 */
        return refuse(EINVAL);
    return real(fd, data, octets);
}

int ioctl(int fd, unsigned long request, ...)
{
    REAL(ioctl);
    va_list rest;
    unsigned long argument;

    va_start(rest, request);
    argument = va_arg(rest, unsigned long);
    va_end(rest);
    if (request == TUNSETOFFLOAD && ((argument && lacks("tso")) || (argument & USO && lacks("uso"))))
        return refuse(EINVAL);
    return real(fd, request, argument);
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *octets)
{
    REAL(getsockopt);

    if (level == IPPROTO_UDP && ((name == SEGMENT && lacks("segment")) || (name == GRO && lacks("gro"))))
        return refuse(ENOPROTOOPT);
    return real(fd, level, name, value, octets);
}

int setsockopt(int fd, int level, int name, const void *value, socklen_t octets)
{
    REAL(setsockopt);

    if (level == IPPROTO_UDP && name == GRO && lacks("gro"))
        return refuse(ENOPROTOOPT);
    return real(fd, level, name, value, octets);
}

int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
    REAL(sendmmsg);
    struct msghdr *first = &messages->msg_hdr;
    int v6 = ((struct sockaddr *)first->msg_name)->sa_family == AF_INET6;

    if (first->msg_controllen && lacks("segment"))
        return refuse(EINVAL);
    if (first->msg_controllen && !forgotten && lacks(v6 ? "link6" : "link4"))
        return refuse(EIO);
    return real(fd, messages, count, flags);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int done = real(clock, now);

    if (clock == CLOCK_BOOTTIME)
        now->tv_sec += hurry_seconds;
    return done;
}
