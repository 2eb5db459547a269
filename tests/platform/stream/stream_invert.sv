// Inverts a stream: takes the number of 64-byte beats in register 0x10 from s_axis_in and gives them
// inverted to m_axis_out. Tests the connection of an RTL kernel with two HLS kernels.
module stream_invert (
  input  logic         ap_clk,
  input  logic         ap_rst_n,
  output logic         interrupt,
  input  logic [15:0]  s_axi_control_awaddr,
  input  logic         s_axi_control_awvalid,
  output logic         s_axi_control_awready,
  input  logic [31:0]  s_axi_control_wdata,
  input  logic [3:0]   s_axi_control_wstrb,
  input  logic         s_axi_control_wvalid,
  output logic         s_axi_control_wready,
  output logic [1:0]   s_axi_control_bresp,
  output logic         s_axi_control_bvalid,
  input  logic         s_axi_control_bready,
  input  logic [15:0]  s_axi_control_araddr,
  input  logic         s_axi_control_arvalid,
  output logic         s_axi_control_arready,
  output logic [31:0]  s_axi_control_rdata,
  output logic [1:0]   s_axi_control_rresp,
  output logic         s_axi_control_rvalid,
  input  logic         s_axi_control_rready,
  input  logic [511:0] s_axis_in_tdata,
  input  logic         s_axis_in_tlast,
  input  logic         s_axis_in_tvalid,
  output logic         s_axis_in_tready,
  output logic [511:0] m_axis_out_tdata,
  output logic         m_axis_out_tlast,
  output logic         m_axis_out_tvalid,
  input  logic         m_axis_out_tready
);
  logic        ap_start, ap_done, reg_we, busy_q, fire, skid_ready;
  logic [15:0] reg_addr;
  logic [31:0] reg_wdata, beats_q, left_q;

  lk_axil_ctrl u_ctrl (
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
    .ap_start_o(ap_start), .ap_done_i(ap_done), .ap_ready_i(ap_done), .ap_idle_i(!busy_q),
    .ap_continue_o(), .interrupt_o(interrupt),
    .reg_we_o(reg_we), .reg_addr_o(reg_addr), .reg_wdata_o(reg_wdata), .reg_wstrb_o(),
    .reg_re_o(), .reg_raddr_o(), .reg_rdata_i(beats_q)
  );

  assign fire             = s_axis_in_tvalid && s_axis_in_tready;
  assign s_axis_in_tready = busy_q && left_q != '0 && skid_ready;
  assign ap_done          = busy_q && left_q == '0;

  always_ff @(posedge ap_clk or negedge ap_rst_n) begin
    if (!ap_rst_n) begin
      beats_q <= '0;
      left_q  <= '0;
      busy_q  <= 1'b0;
    end else begin
      if (reg_we && reg_addr == 16'h10) beats_q <= reg_wdata;
      if (ap_done) busy_q <= 1'b0;
      else if (ap_start && !busy_q) begin
        busy_q <= 1'b1;
        left_q <= beats_q;
      end else if (fire) left_q <= left_q - 1'b1;
    end
  end

  lk_skid #(.Width(513)) u_skid (
    .clk_i(ap_clk), .rst_ni(ap_rst_n),
    .valid_i(fire), .ready_o(skid_ready), .data_i({s_axis_in_tlast, ~s_axis_in_tdata}),
    .valid_o(m_axis_out_tvalid), .ready_i(m_axis_out_tready),
    .data_o({m_axis_out_tlast, m_axis_out_tdata})
  );
endmodule
