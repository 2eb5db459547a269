// Latchkey's enrol build: PUF, response selection and key block on AXI-Lite, and nothing else. It
// is the one build that can export: helper data (public) and the roots of owner slots, once per
// chip. It never ships with a deployed card. Wiring only.
module latchkey_enrol #(
  parameter logic [31:0] BuildHash = 32'd0
) (
  input  logic        ap_clk,
  input  logic        ap_rst_n,
  output logic        interrupt,

  input  logic [15:0] s_axi_control_awaddr,
  input  logic        s_axi_control_awvalid,
  output logic        s_axi_control_awready,
  input  logic [31:0] s_axi_control_wdata,
  input  logic [3:0]  s_axi_control_wstrb,
  input  logic        s_axi_control_wvalid,
  output logic        s_axi_control_wready,
  output logic [1:0]  s_axi_control_bresp,
  output logic        s_axi_control_bvalid,
  input  logic        s_axi_control_bready,
  input  logic [15:0] s_axi_control_araddr,
  input  logic        s_axi_control_arvalid,
  output logic        s_axi_control_arready,
  output logic [31:0] s_axi_control_rdata,
  output logic [1:0]  s_axi_control_rresp,
  output logic        s_axi_control_rvalid,
  input  logic        s_axi_control_rready
);
  import lk_pkg::*;

  logic        reg_we, reg_re, ap_start, ap_continue;
  logic [15:0] reg_waddr, reg_raddr;
  logic [31:0] reg_wdata, reg_rdata;
  logic [3:0]  reg_wstrb;

  // A start has nothing to do here; it ends at once, so that a host is never left waiting.
  lk_axil_ctrl u_axil (
    .clk_i(ap_clk), .rst_ni(ap_rst_n),
    .s_axi_awaddr_i(s_axi_control_awaddr), .s_axi_awvalid_i(s_axi_control_awvalid),
    .s_axi_awready_o(s_axi_control_awready), .s_axi_wdata_i(s_axi_control_wdata),
    .s_axi_wstrb_i(s_axi_control_wstrb), .s_axi_wvalid_i(s_axi_control_wvalid),
    .s_axi_wready_o(s_axi_control_wready), .s_axi_bresp_o(s_axi_control_bresp),
    .s_axi_bvalid_o(s_axi_control_bvalid), .s_axi_bready_i(s_axi_control_bready),
    .s_axi_araddr_i(s_axi_control_araddr), .s_axi_arvalid_i(s_axi_control_arvalid),
    .s_axi_arready_o(s_axi_control_arready), .s_axi_rdata_o(s_axi_control_rdata),
    .s_axi_rresp_o(s_axi_control_rresp), .s_axi_rvalid_o(s_axi_control_rvalid),
    .s_axi_rready_i(s_axi_control_rready),
    .ap_start_o(ap_start), .ap_done_i(ap_start), .ap_ready_i(ap_start), .ap_idle_i(1'b1),
    .ap_continue_o(ap_continue), .interrupt_o(interrupt),
    .reg_we_o(reg_we), .reg_addr_o(reg_waddr), .reg_wdata_o(reg_wdata), .reg_wstrb_o(reg_wstrb),
    .reg_re_o(reg_re), .reg_raddr_o(reg_raddr), .reg_rdata_i(reg_rdata)
  );

  logic [7:0]  slot_q;
  logic [3:0]  slots_q;
  always_ff @(posedge ap_clk or negedge ap_rst_n) begin
    if (!ap_rst_n) begin
      slot_q  <= '0;
      slots_q <= '0;
    end else if (reg_we) begin
      if (reg_waddr == RegSlot) slot_q <= reg_wdata[7:0];
      if (reg_waddr == RegSlots) slots_q <= |reg_wdata[31:4] ? '1 : reg_wdata[3:0];
    end
  end

  logic        busy, health_fail, kek_valid;
  logic [3:0]  state;
  logic [7:0]  err, margin;
  logic [15:0] unstable, lc_state;
  logic [31:0] helper_word, kek_word;
  logic [8:0]  helper_addr;

  assign helper_addr = reg_raddr[10:2];

  lk_enrol_top u_enrol (
    .clk_i(ap_clk), .rst_ni(ap_rst_n),
    .cmd_valid_i(reg_we && reg_waddr == RegCmd), .cmd_i(reg_wdata[3:0]),
    .slot_i(slot_q), .slots_i(slots_q), .busy_o(busy), .state_o(state), .err_o(err),
    .margin_o(margin), .health_fail_o(health_fail), .unstable_o(unstable), .lc_state_o(lc_state),
    .rd_addr_i(helper_addr), .helper_rdata_o(helper_word),
    .kek_valid_o(kek_valid), .kek_rd_addr_i(reg_raddr[7:2]), .kek_rdata_o(kek_word),
    .kek_taken_i(1'b0)
  );

`ifdef LATCHKEY_TARGET_XILINX
  localparam logic VendorPrims = 1'b1;
`else
  localparam logic VendorPrims = 1'b0;
`endif
`ifdef LATCHKEY_TRACE
  localparam logic Waveforms = 1'b1;
`else
  localparam logic Waveforms = 1'b0;
`endif

  logic [31:0] build_hash;
  prim_build_hash #(.BuildHash(BuildHash)) u_build_hash (.hash_o(build_hash));

  logic in_helper, in_kek;
  assign in_helper = reg_raddr >= RegHelperOut && reg_raddr < RegHelperOut + 16'(4 * HelperWords);
  assign in_kek    = reg_raddr >= RegKekOut && reg_raddr < RegKekOut + 16'd256;

  always_comb begin
    unique case (reg_raddr)
      RegKeyState:     reg_rdata = 32'(state);
      RegKeyErr:       reg_rdata = 32'(err);
      RegLcState:      reg_rdata = 32'(lc_state);
      RegUnstable:     reg_rdata = 32'(unstable);
      RegSlot:         reg_rdata = 32'(slot_q);
      RegSlots:        reg_rdata = 32'(slots_q);
      RegMargin:       reg_rdata = 32'(margin);
      RegBuildMagic:   reg_rdata = 32'h4843_4B4C;
      RegBuildFlags:   reg_rdata = {28'd0, Waveforms, VendorPrims, 2'b11};
      RegBuildVersion: reg_rdata = BuildVersion;
      RegBuildHash:    reg_rdata = build_hash;
      default:         reg_rdata = in_helper ? helper_word : in_kek ? kek_word : '0;
    endcase
  end

  logic unused;
  assign unused = ^{ap_continue, reg_re, reg_wstrb, busy, health_fail, kek_valid};
endmodule
