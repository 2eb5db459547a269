// Descriptor RAM: MaxDescs descriptors of 128 bytes, two beats of 512 bits each, low beat first.
// One write port, filled from verified descriptor pages, and one read port shared by the page
// walker, which runs ahead, and the sequencer. A read takes two beats; the answer is the whole
// descriptor.
module lk_desc_ram (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          we_i,
  input  logic [$clog2(2*lk_pkg::MaxDescs)-1:0]    waddr_i,
  input  logic [511:0]  wdata_i,
  // Per client: hold req_i and idx_i until valid_o, which lasts one cycle with desc_o.
  input  logic [1:0]    req_i,
  input  logic [1:0][$clog2(lk_pkg::MaxDescs)-1:0] idx_i,
  output logic [1:0]    valid_o,
  output lk_pkg::desc_t desc_o
);
  typedef enum logic [1:0] {StIdle, StLow, StHigh} state_e;

  logic [511:0] mem [2 * lk_pkg::MaxDescs];
  logic [511:0] rdata_q, low_q;
  logic [1:0]   gnt, gnt_q;
  logic [$clog2(lk_pkg::MaxDescs)-1:0] idx_q;
  state_e       state_q;

  lk_arbiter #(.NumReq(2)) u_arbiter (
    .clk_i, .rst_ni, .req_i, .gnt_o(gnt), .ready_i(state_q == StHigh)
  );

  always_ff @(posedge clk_i) begin
    if (we_i) mem[waddr_i] <= wdata_i;
    rdata_q <= mem[{idx_q, state_q == StLow}];
    if (state_q == StLow) low_q <= rdata_q;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q <= StIdle;
      gnt_q   <= '0;
      idx_q   <= '0;
    end else begin
      unique case (state_q)
        StIdle: begin
          // The address is registered first, so the low beat is read in the next state's cycle.
          gnt_q <= gnt;
          idx_q <= gnt[1] ? idx_i[1] : idx_i[0];
          if (gnt != '0 && gnt_q == gnt) state_q <= StLow;
        end
        StLow:   state_q <= StHigh;
        StHigh: begin
          state_q <= StIdle;
          gnt_q   <= '0;
        end
        default: state_q <= StIdle;
      endcase
    end
  end

  assign desc_o  = lk_pkg::desc_t'({rdata_q, low_q});
  assign valid_o = (state_q == StHigh) ? gnt_q : '0;
endmodule
