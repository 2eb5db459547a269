// Per-channel parameters of a layer, 4,096 channels: bias' int32 | M 24 bit | s 6 bit.
//
// Write: one beat = 4 channels of 16 bytes (bias' int32 | M u32, upper byte ignored | s u8, low 6
// bits | 7 ignored), at group addr_i = channel / 4. Read: re_i with 16-channel group raddr_i in
// cycle t, 16 channels in cycle t+2, channel i at bits [62*i+61:62*i] = {s, M, bias'}. wipe_i
// zeroes the 16 channels at wipe_addr_i.
module lk_param_ram (
  input  logic            clk_i,
  input  logic            we_i,
  input  logic [9:0]      addr_i,
  // verilator lint_off UNUSEDSIGNAL
  input  logic [511:0]    data_i,  // a channel's padding is ignored
  // verilator lint_on UNUSEDSIGNAL
  input  logic            re_i,
  input  logic [7:0]      raddr_i,
  output logic [16*62-1:0] rdata_o,
  input  logic            wipe_i,
  input  logic [7:0]      wipe_addr_i
);
  logic [4*62-1:0] packed_in;
  for (genvar i = 0; i < 4; i++) begin : gen_pack
    assign packed_in[62*i+:62] = {data_i[128*i+64+:6], data_i[128*i+32+:24], data_i[128*i+:32]};
  end

  for (genvar q = 0; q < 4; q++) begin : gen_quarter
    lk_sdp_ram #(.Width(4 * 62), .Depth(lk_pkg::MaxChannels / 16)) u_ram (
      .clk_i,
      .re_i    (re_i || wipe_i),
      .raddr_i (wipe_i ? wipe_addr_i : raddr_i),
      .rdata_o (rdata_o[248*q+:248]),
      .we_i    (wipe_i || (we_i && addr_i[1:0] == 2'(q))),  // SEC_CM: PARAMS.WIPE
      .waddr_i (wipe_i ? wipe_addr_i : addr_i[9:2]),
      .wdata_i (wipe_i ? '0 : packed_in)
    );
  end
endmodule
