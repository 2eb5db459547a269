// The noise source, and the fuses in both forms: the modelled ones and the fabric's registers.
module prim_tb (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        req_i,
  output logic        trng_valid_o,
  output logic [31:0] trng_data_o,
  input  logic        prog_enrolled_i,
  input  logic        prog_lc_i,
  input  logic [15:0] prog_lc_state_i,
  input  logic        prog_min_version_i,
  input  logic [31:0] min_version_i,
  // [0] modelled, [1] fabric
  output logic [1:0]       fuse_valid_o,
  output logic [1:0][15:0] lc_state_o,
  output logic [1:0]       enrolled_o,
  output logic [1:0][31:0] min_version_o,
  output logic [1:0]       lc_locked_o,
  output logic [1:0]       lc_valid_o,
  // codes of the package
  output logic [47:0]      lc_codes_o
);
  assign lc_codes_o = {lk_lc_pkg::LcLocked, lk_lc_pkg::LcEnrolled, lk_lc_pkg::LcOpen};

  prim_trng u_trng (
    .clk_i, .rst_ni, .req_i,
    .valid_o(trng_valid_o),
    .data_o (trng_data_o)
  );

  prim_fuse u_fuse (
    .clk_i, .rst_ni,
    .valid_o      (fuse_valid_o[0]),
    .lc_state_o   (lc_state_o[0]),
    .enrolled_o   (enrolled_o[0]),
    .min_version_o(min_version_o[0]),
    .prog_enrolled_i, .prog_lc_i, .prog_lc_state_i, .prog_min_version_i, .min_version_i
  );

  prim_xilinx_fuse #(
    .ResetMinVersion(32'd5)
  ) u_fabric_fuse (
    .clk_i, .rst_ni,
    .valid_o      (fuse_valid_o[1]),
    .lc_state_o   (lc_state_o[1]),
    .enrolled_o   (enrolled_o[1]),
    .min_version_o(min_version_o[1]),
    .prog_enrolled_i, .prog_lc_i, .prog_lc_state_i, .prog_min_version_i, .min_version_i
  );

  for (genvar i = 0; i < 2; i++) begin : gen_lc
    assign lc_locked_o[i] = lk_lc_pkg::lc_is_locked(lc_state_o[i]);
    assign lc_valid_o[i]  = lk_lc_pkg::lc_is_valid(lc_state_o[i]);
  end
endmodule
