// A simple dual-port RAM of Depth words of Width bits. A read address given
// with re_i in cycle t shows its word in cycle t+2 (block RAM with output register); the word stays
// until the next read. A write in cycle t is seen by reads from t+1 on; a read of the same address
// in the same cycle returns the old word. Contents are undefined until written.
module lk_sdp_ram #(
  parameter int unsigned Width = 512,
  parameter int unsigned Depth = 2048,
  localparam int unsigned Aw = $clog2(Depth)
) (
  input  logic             clk_i,
  input  logic             re_i,
  input  logic [Aw-1:0]    raddr_i,
  output logic [Width-1:0] rdata_o,
  input  logic             we_i,
  input  logic [Aw-1:0]    waddr_i,
  input  logic [Width-1:0] wdata_i
);
  (* ram_style = "block" *) logic [Width-1:0] mem [Depth];
  logic [Width-1:0] ram_q;
  logic             re_q;

  always_ff @(posedge clk_i) begin
    re_q <= re_i;
    if (re_i) ram_q <= mem[raddr_i];
    if (re_q) rdata_o <= ram_q;
    if (we_i) mem[waddr_i] <= wdata_i;
  end
endmodule
