# What the pump asks of Linux.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_trylock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()
    int pthread_setname_np(pthread_t, const char *)  # 15 characters

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    int POLLIN, POLLOUT

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL
    uint32_t EPOLLIN

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    int EFD_NONBLOCK, EFD_CLOEXEC

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)
    int close(int)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int CLOCK_BOOTTIME

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_storage:
        uint16_t ss_family
    struct msghdr:
        void *msg_name
        uint32_t msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    cmsghdr *CMSG_FIRSTHDR(msghdr *)
    cmsghdr *CMSG_NXTHDR(msghdr *, cmsghdr *)
    uint8_t *CMSG_DATA(cmsghdr *)
    size_t CMSG_SPACE(size_t)
    size_t CMSG_LEN(size_t)
    int sendmmsg(int, mmsghdr *, unsigned int, int)
    int recvmmsg(int, mmsghdr *, unsigned int, int, timespec *)
    ssize_t sendto(int, const void *, size_t, int, const sockaddr *, uint32_t)
    ssize_t sendmsg(int, const msghdr *, int)
    int getsockopt(int, int, int, void *, uint32_t *)
    int setsockopt(int, int, int, const void *, uint32_t)
    int AF_INET, AF_INET6, MSG_DONTWAIT, MSG_TRUNC

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
    struct in6_pktinfo:
        in6_addr ipi6_addr
        unsigned int ipi6_ifindex
    int IPPROTO_UDP, IPPROTO_IP, IPPROTO_IPV6, IP_PKTINFO, IPV6_PKTINFO
    int IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IPV6_MTU_DISCOVER

cdef extern from *:
    # Not in the headers of every distribution that has a kernel with them.
    """
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    #ifndef UDP_GRO
    #define UDP_GRO 104
    #endif
    #define atomic_add(place, value) __atomic_fetch_add((place), (value), __ATOMIC_RELAXED)
    #define atomic_next(place) __atomic_add_fetch((place), 1, __ATOMIC_RELAXED)
    #define atomic_get(place) __atomic_load_n((place), __ATOMIC_ACQUIRE)
    #define atomic_set(place, value) __atomic_store_n((place), (value), __ATOMIC_RELEASE)
    """
    int UDP_SEGMENT, UDP_GRO
    void atomic_add(uint64_t *place, uint64_t value) nogil
    uint64_t atomic_next(uint64_t *place) nogil
    uint64_t atomic_get(uint64_t *place) nogil
    void atomic_set(uint64_t *place, uint64_t value) nogil


cdef inline double boottime() noexcept nogil:
    # Seconds on a clock that goes on during suspend.
    cdef timespec now
    clock_gettime(CLOCK_BOOTTIME, &now)
    return now.tv_sec + now.tv_nsec * 1e-9
