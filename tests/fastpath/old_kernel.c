/* Loaded before libc: TUN as before Linux 6.2 (so Debian 12's 6.1), which refuses frames of datagrams. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <unistd.h>

ssize_t write(int fd, const void *data, size_t octets)
{
    static ssize_t (*real)(int, const void *, size_t);

    if (!real)
        real = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    if (octets > 58 && ((const unsigned char *)data)[1] == 5) { /* VIRTIO_NET_HDR_GSO_UDP_L4 */
        errno = EINVAL;
        return -1;
    }
    return real(fd, data, octets);
}
