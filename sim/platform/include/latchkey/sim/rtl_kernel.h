// Turns a Verilated top with the standard port names into an lk_rtl_kernel.
//
//   #include "Vlatchkey_copy.h"
//   #include "latchkey/sim/rtl_kernel.h"
//   LATCHKEY_RTL_KERNEL(Vlatchkey_copy, "latchkey_copy", "");
//
// Ports: ap_clk, ap_rst_n, s_axi_control_* (16-bit addresses, 32-bit data); optional m_axi_gmem_*
// (64-bit addresses, 512-bit data; the read and the write half on their own), s_axis_in_* and
// m_axis_out_* (512 bit; tkeep and tlast optional), interrupt. What exists is found at compile
// time.
#ifndef LATCHKEY_SIM_RTL_KERNEL_H_
#define LATCHKEY_SIM_RTL_KERNEL_H_

#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "latchkey/sim/image.h"
#include "latchkey/sim/silicon_ops.h"
#include "verilated.h"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
#endif

namespace latchkey::sim {

#define LATCHKEY_HAS_PORT(name)           \
  template <class V, class = void>        \
  struct has_##name : std::false_type {}; \
  template <class V>                      \
  struct has_##name<V, std::void_t<decltype(std::declval<V&>().name)>> : std::true_type {}

LATCHKEY_HAS_PORT(m_axi_gmem_araddr);
LATCHKEY_HAS_PORT(m_axi_gmem_arsize);
LATCHKEY_HAS_PORT(m_axi_gmem_arburst);
LATCHKEY_HAS_PORT(m_axi_gmem_rid);
LATCHKEY_HAS_PORT(m_axi_gmem_awaddr);
LATCHKEY_HAS_PORT(m_axi_gmem_awsize);
LATCHKEY_HAS_PORT(m_axi_gmem_awburst);
LATCHKEY_HAS_PORT(m_axi_gmem_bid);
LATCHKEY_HAS_PORT(s_axis_in_tdata);
LATCHKEY_HAS_PORT(s_axis_in_tkeep);
LATCHKEY_HAS_PORT(s_axis_in_tlast);
LATCHKEY_HAS_PORT(m_axis_out_tdata);
LATCHKEY_HAS_PORT(m_axis_out_tkeep);
LATCHKEY_HAS_PORT(m_axis_out_tlast);
LATCHKEY_HAS_PORT(interrupt);
LATCHKEY_HAS_PORT(__SYM__interrupt);  // what Verilator 5.006 calls a port named interrupt
#undef LATCHKEY_HAS_PORT

template <class V>
class RtlKernel {
 public:
  static constexpr uint32_t kPorts =
      (has_m_axi_gmem_araddr<V>::value ? LK_PORT_GMEM_READ : 0u) |
      (has_m_axi_gmem_awaddr<V>::value ? LK_PORT_GMEM_WRITE : 0u) |
      (has_s_axis_in_tdata<V>::value ? LK_PORT_AXIS_IN : 0u) |
      (has_m_axis_out_tdata<V>::value ? LK_PORT_AXIS_OUT : 0u) |
      (has_interrupt<V>::value || has___SYM__interrupt<V>::value ? LK_PORT_INTERRUPT : 0u);

  RtlKernel(const latchkey_silicon_ops* silicon, lk_pins* pins)
      : silicon_(silicon), pins_(pins), top_(init(context_)) {
    if constexpr (has_m_axi_gmem_araddr<V>::value) pins->m_rdata = top_.m_axi_gmem_rdata.data();
    if constexpr (has_m_axi_gmem_awaddr<V>::value) pins->m_wdata = top_.m_axi_gmem_wdata.data();
    if constexpr (has_s_axis_in_tdata<V>::value) pins->in_tdata = top_.s_axis_in_tdata.data();
    if constexpr (has_m_axis_out_tdata<V>::value) pins->out_tdata = top_.m_axis_out_tdata.data();
    if constexpr (has_m_axi_gmem_rid<V>::value) top_.m_axi_gmem_rid = 0;
    if constexpr (has_m_axi_gmem_bid<V>::value) top_.m_axi_gmem_bid = 0;
    top_.ap_clk = 1;
    top_.ap_rst_n = 0;
  }

  // Verilator keeps the context it used last in a thread-local pointer. Models of one image share
  // it, so it is set whenever a model is entered and never left at one that is gone.
  ~RtlKernel() {
    Verilated::threadContextp(&context_);
    trace_close();
    top_.final();
  }

  void settle() {
    latchkey_silicon_select(silicon_);
    Verilated::threadContextp(&context_);
    lk_pins& p = *pins_;
    top_.ap_clk = 0;
    top_.ap_rst_n = p.rst_n;
    top_.s_axi_control_awvalid = p.s_awvalid;
    top_.s_axi_control_wvalid = p.s_wvalid;
    top_.s_axi_control_bready = p.s_bready;
    top_.s_axi_control_arvalid = p.s_arvalid;
    top_.s_axi_control_rready = p.s_rready;
    if (p.s_awvalid) top_.s_axi_control_awaddr = p.s_awaddr;
    if (p.s_wvalid) {
      top_.s_axi_control_wdata = p.s_wdata;
      top_.s_axi_control_wstrb = p.s_wstrb;
    }
    if (p.s_arvalid) top_.s_axi_control_araddr = p.s_araddr;
    if constexpr (has_m_axi_gmem_araddr<V>::value) {
      top_.m_axi_gmem_arready = p.m_arready;
      top_.m_axi_gmem_rvalid = p.m_rvalid;
      top_.m_axi_gmem_rlast = p.m_rlast;
      top_.m_axi_gmem_rresp = p.m_rresp;
    }
    if constexpr (has_m_axi_gmem_awaddr<V>::value) {
      top_.m_axi_gmem_awready = p.m_awready;
      top_.m_axi_gmem_wready = p.m_wready;
      top_.m_axi_gmem_bvalid = p.m_bvalid;
      top_.m_axi_gmem_bresp = p.m_bresp;
    }
    if constexpr (has_s_axis_in_tdata<V>::value) {
      top_.s_axis_in_tvalid = p.in_tvalid;
      if constexpr (has_s_axis_in_tlast<V>::value) top_.s_axis_in_tlast = p.in_tlast;
      if constexpr (has_s_axis_in_tkeep<V>::value) top_.s_axis_in_tkeep = p.in_tkeep;
    }
    if constexpr (has_m_axis_out_tdata<V>::value) top_.m_axis_out_tready = p.out_tready;

    top_.eval();
    dump();

    p.s_awready = top_.s_axi_control_awready;
    p.s_wready = top_.s_axi_control_wready;
    p.s_bvalid = top_.s_axi_control_bvalid;
    p.s_bresp = top_.s_axi_control_bresp;
    p.s_arready = top_.s_axi_control_arready;
    p.s_rvalid = top_.s_axi_control_rvalid;
    p.s_rresp = top_.s_axi_control_rresp;
    p.s_rdata = top_.s_axi_control_rdata;
    p.burst_shape_ok = 1;
    if constexpr (has_m_axi_gmem_araddr<V>::value) {
      p.m_rready = top_.m_axi_gmem_rready;
      p.m_arvalid = top_.m_axi_gmem_arvalid;
      if (p.m_arvalid) {
        p.m_araddr = top_.m_axi_gmem_araddr;
        p.m_arlen = top_.m_axi_gmem_arlen;
        if constexpr (has_m_axi_gmem_arsize<V>::value) {
          p.burst_shape_ok &= top_.m_axi_gmem_arsize == 6;
        }
        if constexpr (has_m_axi_gmem_arburst<V>::value) {
          p.burst_shape_ok &= top_.m_axi_gmem_arburst == 1;
        }
      }
    }
    if constexpr (has_m_axi_gmem_awaddr<V>::value) {
      p.m_bready = top_.m_axi_gmem_bready;
      p.m_awvalid = top_.m_axi_gmem_awvalid;
      if (p.m_awvalid) {
        p.m_awaddr = top_.m_axi_gmem_awaddr;
        p.m_awlen = top_.m_axi_gmem_awlen;
        if constexpr (has_m_axi_gmem_awsize<V>::value) {
          p.burst_shape_ok &= top_.m_axi_gmem_awsize == 6;
        }
        if constexpr (has_m_axi_gmem_awburst<V>::value) {
          p.burst_shape_ok &= top_.m_axi_gmem_awburst == 1;
        }
      }
      p.m_wvalid = top_.m_axi_gmem_wvalid;
      if (p.m_wvalid) {
        p.m_wlast = top_.m_axi_gmem_wlast;
        p.m_wstrb = top_.m_axi_gmem_wstrb;
      }
    }
    if constexpr (has_s_axis_in_tdata<V>::value) p.in_tready = top_.s_axis_in_tready;
    if constexpr (has_m_axis_out_tdata<V>::value) {
      p.out_tvalid = top_.m_axis_out_tvalid;
      if (p.out_tvalid) {
        p.out_tlast = 0;
        p.out_tkeep = ~uint64_t{0};
        if constexpr (has_m_axis_out_tlast<V>::value) p.out_tlast = top_.m_axis_out_tlast;
        if constexpr (has_m_axis_out_tkeep<V>::value) p.out_tkeep = top_.m_axis_out_tkeep;
      }
    }
    if constexpr (has_interrupt<V>::value) p.interrupt = top_.interrupt;
    if constexpr (has___SYM__interrupt<V>::value) p.interrupt = top_.__SYM__interrupt;
  }

  void clock() {
    top_.ap_clk = 1;
    top_.eval();
    dump();
  }

  int trace_open([[maybe_unused]] const char* path) {
#if VM_TRACE_FST
    trace_close();
    trace_ = std::make_unique<VerilatedFstC>();
    top_.trace(trace_.get(), 99);
    trace_->open(path);
    return trace_->isOpen() ? 0 : -1;
#else
    return -1;
#endif
  }

  void trace_close() {
#if VM_TRACE_FST
    if (trace_) trace_->close();
    trace_.reset();
#endif
  }

 private:
  // Registers start from random values, so a kernel that relies on a reset it does not have shows;
  // the seed is fixed, so a run can be repeated.
  static VerilatedContext* init(VerilatedContext& context) {
    Verilated::threadContextp(&context);
    context.randReset(2);
    context.randSeed(1);
#if VM_TRACE_FST
    context.traceEverOn(true);
#endif
    return &context;
  }

  void dump() {
#if VM_TRACE_FST
    context_.timeInc(1);
    if (trace_) trace_->dump(context_.time());
#endif
  }

  const latchkey_silicon_ops* silicon_;
  lk_pins* pins_;
  VerilatedContext context_;
  V top_;
#if VM_TRACE_FST
  std::unique_ptr<VerilatedFstC> trace_;
#endif
};

template <class V>
constexpr lk_rtl_kernel make_rtl_kernel(const char* name, const char* parameters) {
  using Kernel = RtlKernel<V>;
  lk_rtl_kernel k{};
  k.name = name;
  k.parameters = parameters;
  k.ports = Kernel::kPorts;
  k.create = [](const latchkey_silicon_ops* silicon, lk_pins* pins) -> void* {
    latchkey_silicon_select(silicon);
    return new (std::nothrow) Kernel(silicon, pins);
  };
  k.destroy = [](void* instance) { delete static_cast<Kernel*>(instance); };
  k.settle = [](void* instance) { static_cast<Kernel*>(instance)->settle(); };
  k.clock = [](void* instance) { static_cast<Kernel*>(instance)->clock(); };
  k.trace_open = [](void* instance, const char* path) {
    return static_cast<Kernel*>(instance)->trace_open(path);
  };
  k.trace_close = [](void* instance) { static_cast<Kernel*>(instance)->trace_close(); };
  return k;
}

}  // namespace latchkey::sim

#define LATCHKEY_RTL_KERNEL(verilated_class, kernel_name, parameter_text)                \
  namespace {                                                                            \
  const lk_rtl_kernel latchkey_kernel =                                                  \
      latchkey::sim::make_rtl_kernel<verilated_class>(kernel_name, parameter_text);      \
  const bool latchkey_registered = latchkey::sim::register_rtl_kernel(&latchkey_kernel); \
  }

#endif  // LATCHKEY_SIM_RTL_KERNEL_H_
