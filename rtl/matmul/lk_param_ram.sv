// Per-channel parameters of a layer, 4,096 channels: bias' int32 | M 24 bit | s 6 bit.
//
// Write: one beat = 4 channels of 16 bytes (bias' int32 | M u32, upper byte ignored | s u8, low 6
// bits | 7 ignored), at group addr_i = channel / 4. Read: re_i with group raddr_i of Lanes channels
// in cycle t, Lanes channels in cycle t+2, channel i at bits [62*i+61:62*i] = {s, M, bias'}. wipe_i
// zeroes the Lanes channels at wipe_addr_i.
module lk_param_ram #(
  parameter int unsigned Lanes = 16,
  localparam int unsigned Depth = lk_pkg::MaxChannels / Lanes,
  localparam int unsigned Aw = $clog2(Depth)
) (
  input  logic                clk_i,
  input  logic                we_i,
  input  logic [9:0]          addr_i,
  // verilator lint_off UNUSEDSIGNAL
  input  logic [511:0]        data_i,  // a channel's padding is ignored
  // verilator lint_on UNUSEDSIGNAL
  input  logic                re_i,
  input  logic [Aw-1:0]       raddr_i,
  output logic [Lanes*62-1:0] rdata_o,
  input  logic                wipe_i,
  input  logic [Aw-1:0]       wipe_addr_i
);
  localparam int unsigned Parts = Lanes / 4;  // RAMs of 4 channels, the width of a write
  localparam int unsigned PartW = $clog2(Parts);

  logic [4*62-1:0] packed_in;
  for (genvar i = 0; i < 4; i++) begin : gen_pack
    assign packed_in[62*i+:62] = {data_i[128*i+64+:6], data_i[128*i+32+:24], data_i[128*i+:32]};
  end

  for (genvar q = 0; q < Parts; q++) begin : gen_part
    lk_sdp_ram #(.Width(4 * 62), .Depth(Depth)) u_ram (
      .clk_i,
      .re_i    (re_i || wipe_i),
      .raddr_i (wipe_i ? wipe_addr_i : raddr_i),
      .rdata_o (rdata_o[248*q+:248]),
      .we_i    (wipe_i || (we_i && addr_i[PartW-1:0] == PartW'(q))),  // SEC_CM: PARAMS.WIPE
      .waddr_i (wipe_i ? wipe_addr_i : addr_i[9:PartW]),
      .wdata_i (wipe_i ? '0 : packed_in)
    );
  end
endmodule
