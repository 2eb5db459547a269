// Copies a buffer: the smallest kernel that uses every part of the card. 512-bit AXI4 bursts in and
// out at one beat per cycle each, ap_ctrl_chain registers:
//   0x10 source address (64 bit), 0x18 destination address (64 bit), 0x20 bytes (32 bit),
//   0x24 status of the last run, read only: bit 0 a read was refused, bit 1 a write was refused,
//   0x28 cycles of the last run, read only,
//   0x2C bit 0: take no start (for testing the watchdog).
// Addresses are multiples of 64; the last beat is written with byte strobes.
module latchkey_copy (
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

  output logic [63:0]  m_axi_gmem_araddr,
  output logic [7:0]   m_axi_gmem_arlen,
  output logic [2:0]   m_axi_gmem_arsize,
  output logic [1:0]   m_axi_gmem_arburst,
  output logic         m_axi_gmem_arvalid,
  input  logic         m_axi_gmem_arready,
  input  logic [511:0] m_axi_gmem_rdata,
  input  logic [1:0]   m_axi_gmem_rresp,
  input  logic         m_axi_gmem_rlast,
  input  logic         m_axi_gmem_rvalid,
  output logic         m_axi_gmem_rready,
  output logic [63:0]  m_axi_gmem_awaddr,
  output logic [7:0]   m_axi_gmem_awlen,
  output logic [2:0]   m_axi_gmem_awsize,
  output logic [1:0]   m_axi_gmem_awburst,
  output logic         m_axi_gmem_awvalid,
  input  logic         m_axi_gmem_awready,
  output logic [511:0] m_axi_gmem_wdata,
  output logic [63:0]  m_axi_gmem_wstrb,
  output logic         m_axi_gmem_wlast,
  output logic         m_axi_gmem_wvalid,
  input  logic         m_axi_gmem_wready,
  input  logic [1:0]   m_axi_gmem_bresp,
  input  logic         m_axi_gmem_bvalid,
  output logic         m_axi_gmem_bready
);
  localparam logic [2:0] Size64Bytes = 3'd6;
  localparam logic [1:0] BurstIncr   = 2'b01;
  localparam int unsigned BeatsW = 27;

  logic        ap_start, ap_done, ap_ready, ap_idle, ap_continue;
  logic        reg_we, reg_re;
  logic [15:0] reg_addr, reg_raddr;
  logic [31:0] reg_wdata, reg_rdata;
  logic [3:0]  reg_wstrb;

  lk_axil_ctrl u_ctrl (
    .clk_i(ap_clk),
    .rst_ni(ap_rst_n),
    .s_axi_awaddr_i(s_axi_control_awaddr),
    .s_axi_awvalid_i(s_axi_control_awvalid),
    .s_axi_awready_o(s_axi_control_awready),
    .s_axi_wdata_i(s_axi_control_wdata),
    .s_axi_wstrb_i(s_axi_control_wstrb),
    .s_axi_wvalid_i(s_axi_control_wvalid),
    .s_axi_wready_o(s_axi_control_wready),
    .s_axi_bresp_o(s_axi_control_bresp),
    .s_axi_bvalid_o(s_axi_control_bvalid),
    .s_axi_bready_i(s_axi_control_bready),
    .s_axi_araddr_i(s_axi_control_araddr),
    .s_axi_arvalid_i(s_axi_control_arvalid),
    .s_axi_arready_o(s_axi_control_arready),
    .s_axi_rdata_o(s_axi_control_rdata),
    .s_axi_rresp_o(s_axi_control_rresp),
    .s_axi_rvalid_o(s_axi_control_rvalid),
    .s_axi_rready_i(s_axi_control_rready),
    .ap_start_o(ap_start),
    .ap_done_i(ap_done),
    .ap_ready_i(ap_ready),
    .ap_idle_i(ap_idle),
    .ap_continue_o(ap_continue),
    .interrupt_o(interrupt),
    .reg_we_o(reg_we),
    .reg_addr_o(reg_addr),
    .reg_wdata_o(reg_wdata),
    .reg_wstrb_o(reg_wstrb),
    .reg_re_o(reg_re),
    .reg_raddr_o(reg_raddr),
    .reg_rdata_i(reg_rdata)
  );

  logic [63:0] src_q, dst_q;
  logic [31:0] bytes_q, cycles_q;
  logic [1:0]  status_q;
  logic        hang_q;

  always_ff @(posedge ap_clk or negedge ap_rst_n) begin
    if (!ap_rst_n) begin
      src_q   <= '0;
      dst_q   <= '0;
      bytes_q <= '0;
      hang_q  <= 1'b0;
    end else if (reg_we && reg_wstrb == 4'hF) begin
      unique case (reg_addr)
        16'h10:  src_q[31:0]  <= reg_wdata;
        16'h14:  src_q[63:32] <= reg_wdata;
        16'h18:  dst_q[31:0]  <= reg_wdata;
        16'h1C:  dst_q[63:32] <= reg_wdata;
        16'h20:  bytes_q      <= reg_wdata;
        16'h2C:  hang_q       <= reg_wdata[0];
        default: ;
      endcase
    end
  end

  always_comb begin
    unique case (reg_raddr)
      16'h10:  reg_rdata = src_q[31:0];
      16'h14:  reg_rdata = src_q[63:32];
      16'h18:  reg_rdata = dst_q[31:0];
      16'h1C:  reg_rdata = dst_q[63:32];
      16'h20:  reg_rdata = bytes_q;
      16'h24:  reg_rdata = {30'b0, status_q};
      16'h28:  reg_rdata = cycles_q;
      16'h2C:  reg_rdata = {31'b0, hang_q};
      default: reg_rdata = '0;
    endcase
  end

  // One run: both splitters take the request, then beats flow from R to W through a FIFO, then the
  // last write answer ends it.
  typedef enum logic [1:0] {Idle, Request, Run, Done} state_e;
  state_e state_q;
  logic [BeatsW-1:0] beats, w_left_q;
  logic [BeatsW-1:0] b_left_q;  // bursts without an answer yet, counted up at AW
  logic req_rd_ready, req_wr_ready, req_fire;
  logic aw_fire, b_fire, w_fire;

  assign beats    = BeatsW'((33'(bytes_q) + 33'd63) >> 6);
  assign ap_idle  = state_q == Idle;
  assign ap_ready = state_q == Done;
  assign ap_done  = state_q == Done;
  assign req_fire = state_q == Request && req_rd_ready && req_wr_ready;

  always_ff @(posedge ap_clk or negedge ap_rst_n) begin
    if (!ap_rst_n) begin
      state_q  <= Idle;
      w_left_q <= '0;
      b_left_q <= '0;
      status_q <= '0;
      cycles_q <= '0;
    end else begin
      unique case (state_q)
        Idle: if (ap_start && !hang_q) begin
          state_q  <= Request;
          status_q <= '0;
          cycles_q <= '0;
        end
        Request: if (req_fire) begin
          state_q  <= Run;
          w_left_q <= beats;
        end
        Run: if (w_left_q == '0 && b_left_q == '0) state_q <= Done;
        Done: state_q <= Idle;
        default: state_q <= Idle;
      endcase
      if (state_q != Idle && state_q != Done) cycles_q <= cycles_q + 1'b1;
      if (w_fire) w_left_q <= w_left_q - 1'b1;
      b_left_q <= b_left_q + BeatsW'(aw_fire) - BeatsW'(b_fire);
      if (m_axi_gmem_rvalid && m_axi_gmem_rready && m_axi_gmem_rresp != 2'b00) status_q[0] <= 1'b1;
      if (b_fire && m_axi_gmem_bresp != 2'b00) status_q[1] <= 1'b1;
    end
  end

  lk_axi_burst_splitter #(.BeatsWidth(BeatsW)) u_read_split (
    .clk_i(ap_clk),
    .rst_ni(ap_rst_n),
    .req_valid_i(req_fire),
    .req_ready_o(req_rd_ready),
    .req_addr_i(src_q),
    .req_beats_i(beats),
    .burst_valid_o(m_axi_gmem_arvalid),
    .burst_ready_i(m_axi_gmem_arready),
    .burst_addr_o(m_axi_gmem_araddr),
    .burst_len_o(m_axi_gmem_arlen),
    .burst_last_o()
  );
  assign m_axi_gmem_arsize  = Size64Bytes;
  assign m_axi_gmem_arburst = BurstIncr;

  // Write addresses go out only as fast as the queue of burst lengths takes them.
  logic       split_valid, len_ready, len_valid, len_pop;
  logic [7:0] len, beat_q;
  lk_axi_burst_splitter #(.BeatsWidth(BeatsW)) u_write_split (
    .clk_i(ap_clk),
    .rst_ni(ap_rst_n),
    .req_valid_i(req_fire),
    .req_ready_o(req_wr_ready),
    .req_addr_i(dst_q),
    .req_beats_i(beats),
    .burst_valid_o(split_valid),
    .burst_ready_i(m_axi_gmem_awready && len_ready),
    .burst_addr_o(m_axi_gmem_awaddr),
    .burst_len_o(m_axi_gmem_awlen),
    .burst_last_o()
  );
  assign m_axi_gmem_awvalid = split_valid && len_ready;
  assign m_axi_gmem_awsize  = Size64Bytes;
  assign m_axi_gmem_awburst = BurstIncr;
  assign aw_fire = m_axi_gmem_awvalid && m_axi_gmem_awready;

  lk_fifo #(.Width(8), .Depth(4)) u_lens (
    .clk_i(ap_clk),
    .rst_ni(ap_rst_n),
    .clear_i(1'b0),
    .valid_i(aw_fire),
    .ready_o(len_ready),
    .data_i(m_axi_gmem_awlen),
    .valid_o(len_valid),
    .ready_i(len_pop),
    .data_o(len),
    .level_o()
  );

  logic data_valid;
  lk_fifo #(.Width(512), .Depth(128)) u_data (
    .clk_i(ap_clk),
    .rst_ni(ap_rst_n),
    .clear_i(1'b0),
    .valid_i(m_axi_gmem_rvalid),
    .ready_o(m_axi_gmem_rready),
    .data_i(m_axi_gmem_rdata),
    .valid_o(data_valid),
    .ready_i(w_fire),
    .data_o(m_axi_gmem_wdata),
    .level_o()
  );

  assign m_axi_gmem_wvalid = data_valid && len_valid;
  assign m_axi_gmem_wlast  = beat_q == len;
  assign w_fire  = m_axi_gmem_wvalid && m_axi_gmem_wready;
  assign len_pop = w_fire && m_axi_gmem_wlast;
  always_ff @(posedge ap_clk or negedge ap_rst_n) begin
    if (!ap_rst_n) beat_q <= '0;
    else if (w_fire) beat_q <= m_axi_gmem_wlast ? '0 : beat_q + 1'b1;
  end

  // Byte strobes: all, but in the last beat only the bytes that remain.
  always_comb begin
    m_axi_gmem_wstrb = '1;
    if (w_left_q == BeatsW'(1) && bytes_q[5:0] != '0) begin
      m_axi_gmem_wstrb = (64'd1 << bytes_q[5:0]) - 64'd1;
    end
  end

  assign m_axi_gmem_bready = 1'b1;
  assign b_fire = m_axi_gmem_bvalid;

  logic unused;
  assign unused = ^{ap_continue, reg_re, m_axi_gmem_rlast};
endmodule
