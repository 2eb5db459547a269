/* The C interface between the simulated card and the kernels of a card image.
 *
 * A card image is a shared library: the EMULATION_DATA section of an xclbin. It exports one
 * function, latchkey_image(), that lists its kernels. Two kinds exist: RTL kernels  a Verilated
 * top, advanced cycle by cycle through a flat set of pins; HLS kernels  a C++ function with
 * blocking stream and memory calls, run as a coroutine. Everything is plain C, so an image never
 * shares a C++ runtime object with the card. RTL kernels get their table from rtl_kernel.h and HLS
 * kernels from hls_kernel.h; nobody fills it by hand.
 */
#ifndef LATCHKEY_SIM_MODEL_ABI_H_
#define LATCHKEY_SIM_MODEL_ABI_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when a structure or the meaning of a call changes; the card refuses other versions. */
#define LATCHKEY_MODEL_ABI 2u

/* The modelled chip of one card (PUF, noise source, fuses); defined in silicon_ops.h. */
struct latchkey_silicon_ops;

/* Which ports a kernel has. Every kernel has s_axi_control. */
enum lk_ports {
  LK_PORT_GMEM_READ = 1u << 0,  /* m_axi_gmem ar, r */
  LK_PORT_GMEM_WRITE = 1u << 1, /* m_axi_gmem aw, w, b */
  LK_PORT_AXIS_IN = 1u << 2,    /* s_axis_in */
  LK_PORT_AXIS_OUT = 1u << 3,   /* m_axis_out */
  LK_PORT_INTERRUPT = 1u << 4
};

#define LK_BEAT_BYTES 64u
#define LK_BEAT_WORDS 16u

/* The pins of an RTL kernel for one cycle. The card sets the inputs, calls settle(), and finds in
 * the outputs the values that stand at the ports together with these inputs before the rising edge:
 * a transfer happens where valid and ready are both 1. It takes the data it wants and calls
 * clock(), the rising edge. Data buses are pointers to the model's own storage, valid from create()
 * to destroy(), so that data moves only when there is a transfer; inputs are written before
 * settle(), outputs are read between settle() and clock(). Byte b of a bus is byte b in memory.
 */
struct lk_pins {
  /* inputs */
  uint8_t rst_n;
  uint8_t s_awvalid, s_wvalid, s_wstrb, s_bready, s_arvalid, s_rready;
  uint8_t m_arready, m_rvalid, m_rlast, m_rresp;
  uint8_t m_awready, m_wready, m_bvalid, m_bresp;
  uint8_t in_tvalid, in_tlast;
  uint8_t out_tready;
  uint16_t s_awaddr, s_araddr;
  uint32_t s_wdata;
  uint64_t in_tkeep;
  /* outputs */
  uint8_t s_awready, s_wready, s_bvalid, s_bresp, s_arready, s_rvalid, s_rresp;
  uint8_t m_arvalid, m_arlen, m_rready;
  uint8_t m_awvalid, m_awlen, m_wvalid, m_wlast, m_bready;
  uint8_t in_tready;
  uint8_t out_tvalid, out_tlast;
  uint8_t interrupt;
  uint8_t burst_shape_ok; /* 0 when an address is valid with a size other than 64 bytes or a burst
                             type other than INCR */
  uint32_t s_rdata;
  uint64_t m_araddr, m_awaddr, m_wstrb;
  uint64_t out_tkeep;
  /* data buses: LK_BEAT_WORDS words each, NULL without the port */
  uint32_t* m_rdata;
  const uint32_t* m_wdata;
  uint32_t* in_tdata;
  const uint32_t* out_tdata;
};

struct lk_rtl_kernel {
  const char* name;       /* the kernel's name in IP_LAYOUT, before the colon */
  const char* parameters; /* free text about the build, e.g. "N=64 Locked=1" */
  uint32_t ports;         /* of enum lk_ports */
  /* A new instance; pins stays at its address until destroy(). NULL when out of memory. */
  void* (*create)(const struct latchkey_silicon_ops* silicon, struct lk_pins* pins);
  void (*destroy)(void* instance);
  /* One clock cycle is settle(), then clock(). */
  void (*settle)(void* instance);
  void (*clock)(void* instance);
  /* Waveforms. 0 on success; -1 when the image was built without them. */
  int (*trace_open)(void* instance, const char* path);
  void (*trace_close)(void* instance);
};

/* One transfer of a 512-bit AXI stream. */
struct lk_axis_beat {
  uint32_t data[LK_BEAT_WORDS];
  uint64_t keep;
  uint8_t last;
};

/* What an HLS kernel may do; every call may suspend the kernel and none returns an error: when the
 * run is aborted a call leaves by a C++ exception that the kernel must let pass.
 * Time: a port moves one beat per cycle; calls on different ports may share a cycle. */
struct lk_hls_env {
  void* ctx;
  void (*stream_read)(void* ctx, struct lk_axis_beat* beat);
  void (*stream_write)(void* ctx, const struct lk_axis_beat* beat);
  /* Reads or writes card memory in bursts of up to 4 KiB. A read returns after the latency of its
   * first burst and its bandwidth is booked; a write returns when its last burst was answered. */
  void (*mem_read)(void* ctx, uint64_t address, void* data, uint64_t bytes);
  void (*mem_write)(void* ctx, uint64_t address, const void* data, uint64_t bytes);
  /* The kernel's argument registers, by byte offset (0x10 and up). */
  uint32_t (*reg_read)(void* ctx, uint32_t offset);
  void (*reg_write)(void* ctx, uint32_t offset, uint32_t value);
  void (*wait_cycles)(void* ctx, uint32_t cycles);
};

struct lk_hls_kernel {
  const char* name;
  uint32_t ports;   /* LK_PORT_AXIS_IN, LK_PORT_AXIS_OUT, LK_PORT_GMEM_* */
  uint32_t latency; /* pipeline depth in cycles, paid once per run */
  void (*run)(const struct lk_hls_env* env);
};

struct lk_image {
  uint32_t abi; /* LATCHKEY_MODEL_ABI */
  uint32_t num_rtl;
  const struct lk_rtl_kernel* const* rtl;
  uint32_t num_hls;
  const struct lk_hls_kernel* const* hls;
};

/* The one symbol of an image. */
const struct lk_image* latchkey_image(void);
typedef const struct lk_image* (*lk_image_fn)(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* LATCHKEY_SIM_MODEL_ABI_H_ */
