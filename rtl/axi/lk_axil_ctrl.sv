// AXI4-Lite front of a kernel: the ap_ctrl_chain control registers and a plain register bus.
//
// Offsets 0x00 to 0x0F are answered here, all others go to the register bus:
//   0x00 CTRL  bit 0 start (write 1; reads 1 until the kernel took it), bit 1 done (held until
//              continue), bit 2 idle, bit 3 ready (cleared by reading), bit 4 continue (write 1),
//              bit 9 interrupt line
//   0x04 GIER  bit 0 enables the interrupt line
//   0x08 IER   bit 0 done, bit 1 ready
//   0x0C ISR   bit 0 done, bit 1 ready; writing 1 toggles a bit
// A start given before the continue of the last run is kept and shown to the kernel after it.
//
// Register bus: a write is one cycle of reg_we_o with address, data and byte strobes. A read is one
// cycle of reg_re_o; reg_raddr_o stands for two cycles from then on and reg_rdata_i is taken in the
// second, so that a synchronous RAM may answer.
// Addresses are byte addresses with bits 1:0 cleared. Every access is answered with OKAY, whatever
// the kernel does: a register that does not answer would stop the whole card.
// Throughput: one write every two cycles, one read every four; both directions independent.
module lk_axil_ctrl (
  input  logic        clk_i,
  input  logic        rst_ni,

  input  logic [15:0] s_axi_awaddr_i,
  input  logic        s_axi_awvalid_i,
  output logic        s_axi_awready_o,
  input  logic [31:0] s_axi_wdata_i,
  input  logic [3:0]  s_axi_wstrb_i,
  input  logic        s_axi_wvalid_i,
  output logic        s_axi_wready_o,
  output logic [1:0]  s_axi_bresp_o,
  output logic        s_axi_bvalid_o,
  input  logic        s_axi_bready_i,
  input  logic [15:0] s_axi_araddr_i,
  input  logic        s_axi_arvalid_i,
  output logic        s_axi_arready_o,
  output logic [31:0] s_axi_rdata_o,
  output logic [1:0]  s_axi_rresp_o,
  output logic        s_axi_rvalid_o,
  input  logic        s_axi_rready_i,

  output logic        ap_start_o,     // level, until ap_ready_i or ap_done_i
  input  logic        ap_done_i,      // pulse
  input  logic        ap_ready_i,     // pulse: the kernel took the start
  input  logic        ap_idle_i,      // level
  output logic        ap_continue_o,  // pulse
  output logic        interrupt_o,

  output logic        reg_we_o,
  output logic [15:0] reg_addr_o,
  output logic [31:0] reg_wdata_o,
  output logic [3:0]  reg_wstrb_o,
  output logic        reg_re_o,
  output logic [15:0] reg_raddr_o,
  input  logic [31:0] reg_rdata_i
);
  localparam logic [1:0] RespOkay = 2'b00;

  // Write channel: address and data may come in either order.
  logic        aw_full_q, w_full_q, bvalid_q;
  logic [15:0] awaddr_q;
  logic [31:0] wdata_q;
  logic [3:0]  wstrb_q;
  logic        wr_fire, wr_ctrl;

  assign s_axi_awready_o = !aw_full_q;
  assign s_axi_wready_o  = !w_full_q;
  assign s_axi_bvalid_o  = bvalid_q;
  assign s_axi_bresp_o   = RespOkay;
  assign wr_fire = aw_full_q && w_full_q && (!bvalid_q || s_axi_bready_i);
  assign wr_ctrl = wr_fire && awaddr_q[15:4] == '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      aw_full_q <= 1'b0;
      w_full_q  <= 1'b0;
      bvalid_q  <= 1'b0;
    end else begin
      if (wr_fire) begin
        aw_full_q <= 1'b0;
        w_full_q  <= 1'b0;
        bvalid_q  <= 1'b1;
      end else if (s_axi_bready_i) begin
        bvalid_q <= 1'b0;
      end
      if (s_axi_awvalid_i && s_axi_awready_o) aw_full_q <= 1'b1;
      if (s_axi_wvalid_i && s_axi_wready_o) w_full_q <= 1'b1;
    end
  end

  always_ff @(posedge clk_i) begin
    if (s_axi_awvalid_i && s_axi_awready_o) awaddr_q <= s_axi_awaddr_i;
    if (s_axi_wvalid_i && s_axi_wready_o) begin
      wdata_q <= s_axi_wdata_i;
      wstrb_q <= s_axi_wstrb_i;
    end
  end

  assign reg_we_o    = wr_fire && !wr_ctrl;
  assign reg_addr_o  = {awaddr_q[15:2], 2'b00};
  assign reg_wdata_o = wdata_q;
  assign reg_wstrb_o = wstrb_q;

  // Read channel.
  logic        rvalid_q;
  logic [31:0] rdata_q, ctrl_rdata;
  logic        rd_fire, rd_ctrl;

  logic [15:0] raddr_q;
  logic [1:0]  rd_stage_q;  // bit 0: address registered; bit 1: data is taken at this edge

  assign s_axi_arready_o = !rvalid_q && rd_stage_q == '0;
  assign s_axi_rvalid_o  = rvalid_q;
  assign s_axi_rdata_o   = rdata_q;
  assign s_axi_rresp_o   = RespOkay;
  assign rd_fire     = rd_stage_q[1];
  assign rd_ctrl     = rd_fire && raddr_q[15:4] == '0;
  assign reg_re_o    = rd_stage_q[0] && raddr_q[15:4] != '0;
  assign reg_raddr_o = {raddr_q[15:2], 2'b00};

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      rvalid_q   <= 1'b0;
      rdata_q    <= '0;
      raddr_q    <= '0;
      rd_stage_q <= '0;
    end else begin
      rd_stage_q <= {rd_stage_q[0], s_axi_arvalid_i && s_axi_arready_o};
      if (s_axi_arvalid_i && s_axi_arready_o) raddr_q <= s_axi_araddr_i;
      if (rd_fire) begin
        rvalid_q <= 1'b1;
        rdata_q  <= rd_ctrl ? ctrl_rdata : reg_rdata_i;
      end else if (s_axi_rready_i) begin
        rvalid_q <= 1'b0;
      end
    end
  end

  // Control registers.
  logic       start_q, done_q, ready_q, gie_q;
  logic [1:0] ier_q, isr_q;
  logic       set_start, set_continue;
  logic [1:0] isr_set, isr_toggle;

  assign set_start     = wr_ctrl && awaddr_q[3:2] == 2'd0 && wstrb_q[0] && wdata_q[0];
  assign set_continue  = wr_ctrl && awaddr_q[3:2] == 2'd0 && wstrb_q[0] && wdata_q[4];
  assign isr_set       = {ap_ready_i, ap_done_i} & ier_q;
  assign isr_toggle    = (wr_ctrl && awaddr_q[3:2] == 2'd3 && wstrb_q[0]) ? wdata_q[1:0] : 2'b00;
  assign ap_start_o    = start_q && !done_q;
  assign ap_continue_o = set_continue;
  assign interrupt_o   = gie_q && (isr_q != 2'b00);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      start_q <= 1'b0;
      done_q  <= 1'b0;
      ready_q <= 1'b0;
      gie_q   <= 1'b0;
      ier_q   <= '0;
      isr_q   <= '0;
    end else begin
      if (set_start) start_q <= 1'b1;
      else if (ap_start_o && (ap_ready_i || ap_done_i)) start_q <= 1'b0;
      if (ap_done_i) done_q <= 1'b1;
      else if (set_continue) done_q <= 1'b0;
      if (ap_ready_i) ready_q <= 1'b1;
      else if (rd_ctrl && raddr_q[3:2] == 2'd0) ready_q <= 1'b0;
      if (wr_ctrl && wstrb_q[0] && awaddr_q[3:2] == 2'd1) gie_q <= wdata_q[0];
      if (wr_ctrl && wstrb_q[0] && awaddr_q[3:2] == 2'd2) ier_q <= wdata_q[1:0];
      // An event in the cycle of a clearing write is kept.
      isr_q <= (isr_q ^ isr_toggle) | isr_set;
    end
  end

  always_comb begin
    unique case (raddr_q[3:2])
      2'd0:    ctrl_rdata = {22'b0, interrupt_o, 5'b0, ready_q, ap_idle_i, done_q, start_q};
      2'd1:    ctrl_rdata = {31'b0, gie_q};
      2'd2:    ctrl_rdata = {30'b0, ier_q};
      default: ctrl_rdata = {30'b0, isr_q};
    endcase
  end

  // Bits 1:0 of the addresses do not select anything: accesses are whole words.
  logic unused;
  assign unused = ^{awaddr_q[1:0], raddr_q[1:0]};
endmodule
