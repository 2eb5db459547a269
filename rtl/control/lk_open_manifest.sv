// Stands in the place of the key block in the unlocked elaboration: takes a manifest in clear and
// checks the same public facts. There is no key and nothing to authenticate with.
module lk_open_manifest (
  input  logic              clk_i,
  input  logic              rst_ni,
  input  logic              cmd_valid_i,
  input  logic [3:0]        cmd_i,
  input  logic              manifest_we_i,
  input  logic [31:0]       wdata_i,
  input  logic              fill_clear_i,
  output logic              wipe_o,
  input  logic              wipe_busy_i,
  input  logic [31:0]       config_id_i,
  output logic [3:0]        state_o,
  output logic [7:0]        err_o,
  output logic              manifest_valid_o,
  output lk_pkg::manifest_t manifest_o
);
  import lk_pkg::*;

  logic [ManifestWords-1:0][31:0] words_q;
  logic [5:0]                     count_q;
  manifest_t                      seen;
  key_err_e                       err_q, verdict;

  localparam logic [31:0] Magic = 32'h464D_4B4C;  // "LKMF"

  assign seen = manifest_t'(words_q);
  always_comb begin
    verdict = KeyErrNone;
    if (count_q != 6'(ManifestWords) || seen.magic != Magic || seen.format != FormatVersion) begin
      verdict = KeyErrManifestMalformed;
    end else if (seen.config_id != config_id_i) begin
      verdict = KeyErrConfigMismatch;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      words_q          <= '0;
      count_q          <= '0;
      err_q            <= KeyErrNone;
      manifest_valid_o <= 1'b0;
      wipe_o           <= 1'b0;
    end else begin
      wipe_o <= 1'b0;
      if (fill_clear_i) begin
        count_q          <= '0;
        manifest_valid_o <= 1'b0;
      end else if (manifest_we_i) begin
        manifest_valid_o <= 1'b0;
        if (count_q < 6'(ManifestWords)) words_q[count_q[4:0]] <= wdata_i;
        if (count_q != '1) count_q <= count_q + 1'b1;
      end
      if (cmd_valid_i) begin
        unique case (cmd_i)
          CmdStart: err_q <= KeyErrNone;
          CmdUnwrap: begin
            err_q            <= verdict;
            manifest_valid_o <= verdict == KeyErrNone;
            wipe_o           <= 1'b1;  // the last model's state goes, as in the locked build
          end
          CmdZeroise: begin
            err_q            <= KeyErrNone;
            manifest_valid_o <= 1'b0;
            wipe_o           <= 1'b1;
          end
          default: err_q <= KeyErrIllegalCommand;
        endcase
      end
    end
  end

  assign manifest_o = seen;
  assign err_o      = err_q;
  assign state_o    = (err_q != KeyErrNone) ? KeyStateFailed
                      : (wipe_o || wipe_busy_i) ? KeyStateBusy
                      : manifest_valid_o ? KeyStateKeyLoaded : KeyStateStarted;
endmodule
