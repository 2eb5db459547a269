// Key block of the enrol build: enrols the device, once, and hands out the roots of owner slots.
//
// ENROL    lets lk_puf_select choose 2,040 reliable response bits, draws the device id and eight
//          random code words, forms the helper data (mask, offset, tag) and the roots of the owner
//          slots given with the command (`slots_i` of them from `slot_i` on), and burns the fuses.
// ZEROISE  forgets everything secret, also in the middle of an enrolment, but not between the
// fuses.
//
// Nothing is readable before both fuses are burnt: not the helper data, not the key. The enrolled
// bit goes first and each burn is read back. Losing power before the first burn therefore loses
// nothing, since no offset of this PUF was ever seen outside and a second enrolment is harmless;
// losing it later leaves a device that refuses to enrol and to start. There is no moment at which
// two different offsets of one PUF can have been published, which would leak more than the code
// allows.
//
// After that the state is KeyStateStarted: helper data is read through `rd_addr_i` (272 words, one
// cycle later), the roots through `kek_rd_addr_i` (8 words a slot, the first slot first, same
// cycle). `kek_taken_i` or the command KEK_TAKEN ends the export: the roots are gone and the state
// is KeyStateKeyLoaded; the helper data, which is public, stays readable until a ZEROISE or reset.
//
// ENROL is refused without side effect when the slots are not 1 to 8 within 0..7 (KeyErrSlot), the
// device is enrolled (KeyErrAlreadyEnrolled) or its life cycle is not open (KeyErrLifeCycle).
// KeyErrTooFewReliable: too few reliable responses or a stuck chain; KeyErrPufHealth: no random
// numbers, no answer from the PUF, or a fuse that does not burn.
module lk_enrol_block #(
  // Longest wait for any of the PUF, a random word or a fuse, in cycles.
  parameter int unsigned Timeout = 1 << 22
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  // command and public status
  input  logic         cmd_valid_i,
  input  logic [3:0]   cmd_i,
  input  logic [7:0]   slot_i,
  input  logic [3:0]   slots_i,
  output logic         busy_o,
  output logic [3:0]   state_o,
  output logic [7:0]   err_o,
  output logic [7:0]   margin_o,
  output logic [15:0]  lc_state_o,
  // export
  input  logic [8:0]   rd_addr_i,
  output logic [31:0]  helper_rdata_o,
  output logic         kek_valid_o,
  input  logic [5:0]   kek_rd_addr_i,
  output logic [31:0]  kek_rdata_o,
  input  logic         kek_taken_i,
  // lk_puf_select and sampler
  output logic         sel_start_o,
  output logic         sel_clear_o,
  input  logic         sel_busy_i,
  input  logic         sel_done_i,
  input  logic         sel_fail_i,
  input  logic [7:0]   sel_margin_i,
  output logic [5:0]   sel_rd_idx_o,
  input  logic [95:0]  sel_rd_mask_i,
  input  logic [95:0]  sel_rd_resp_i,
  input  logic         puf_busy_i,
  // random numbers
  output logic         trng_req_o,
  input  logic         trng_valid_i,
  input  logic [31:0]  trng_data_i,
  // fuses
  input  logic         fuse_enrolled_i,
  input  logic [15:0]  fuse_lc_state_i,
  output logic         fuse_prog_enrolled_o,
  output logic         fuse_prog_lc_o,
  output logic [15:0]  fuse_prog_lc_state_o
);
  import lk_pkg::*;
  import lk_key_pkg::*;

  enrol_fsm_e state_q, state_d;
  logic         enter_q;
  logic [7:0]   err_q, err_d;
  logic [5:0]   walk_q;
  logic [31:0]  timer_q;
  logic         hung;

  logic parked, zeroing, readable;
  assign parked   = state_q == EnIdle || state_q == EnExport || state_q == EnDone ||
                    state_q == EnFailed || state_q == EnLocked;
  assign zeroing  = state_q == EnZeroIdle || state_q == EnZeroFailed || state_q == EnZeroLocked ||
                    state_q == EnZeroDone;
  assign readable = state_q == EnExport || state_q == EnDone;

  // SEC_CM: ENROL.WIPE
  logic wipe_all, scrub;
  assign wipe_all = zeroing || state_q == EnLocked;
  assign scrub    = wipe_all || state_q == EnScrub;

  // ---- helper data memory ----------------------------------------------------------------------
  logic [31:0] helper_mem [512];
  logic [8:0]  addr_q, addr_d, rd_addr, wr_addr;
  logic [31:0] helper_q, wr_data;
  logic        helper_we, fresh_q, readable_q;

  assign rd_addr = readable ? rd_addr_i : addr_q;
  always_ff @(posedge clk_i) begin
    if (helper_we) helper_mem[wr_addr] <= wr_data;
    helper_q <= helper_mem[rd_addr];
  end
  assign helper_rdata_o = readable_q ? helper_q : '0;

  // ---- response bits (secret), 32 a word -------------------------------------------------------
  logic [31:0] resp_mem [NumRows];
  logic        resp_we;
  logic [10:0] bit_q;       // masked response bits taken, later code word bits
  logic [31:0] acc_q, acc_new;
  logic        acc_bit;
  assign acc_new = (bit_q[4:0] == '0 ? '0 : acc_q) | (32'(acc_bit) << bit_q[4:0]);

  logic [5:0]  resp_idx;
  logic [31:0] resp_word;
  always_ff @(posedge clk_i) begin
    if (scrub) resp_mem[walk_q] <= '0;
    else if (resp_we) resp_mem[bit_q[10:5]] <= acc_new;
  end
  assign resp_idx = (state_q == EnExtract) ? addr_q[5:0] : bit_q[10:5];
  always_comb begin
    resp_word = '0;
    if (state_q == EnExtract || state_q == EnCode) resp_word = resp_mem[resp_idx];
  end

  // ---- scan of the selected rows ---------------------------------------------------------------
  logic [95:0] mask_sr_q, resp_sr_q;
  logic [6:0]  scan_q;
  logic [5:0]  row_q;
  assign sel_rd_idx_o = row_q;
  assign sel_start_o  = state_q == EnSelect && enter_q;
  assign sel_clear_o  = wipe_all || (state_q == EnScrub && enter_q);
  assign resp_we      = state_q == EnScan && mask_sr_q[0];

  // ---- random code words -----------------------------------------------------------------------
  logic [31:0] rand_q;
  logic [5:0]  rand_left_q;
  logic        enc_in_ready, enc_out_valid, enc_out_bit, enc_out_last, enc_take;
  lk_bch_encoder u_encoder (
    .clk_i,
    .rst_ni,
    .clear_i     (scrub),
    .in_valid_i  (state_q == EnCode && rand_left_q != '0),
    .in_ready_o  (enc_in_ready),
    .in_bit_i    (rand_q[0]),
    .out_valid_o (enc_out_valid),
    .out_ready_i (state_q == EnCode),
    .out_bit_o   (enc_out_bit),
    .out_last_o  (enc_out_last)
  );
  assign enc_take = state_q == EnCode && enc_out_valid;
  assign acc_bit  = (state_q == EnScan) ? resp_sr_q[0] : enc_out_bit ^ resp_word[bit_q[4:0]];

  assign trng_req_o = (state_q == EnHeader && walk_q >= 6'd2 && walk_q <= 6'd5) ||
                      (state_q == EnCode && rand_left_q == '0);

  // ---- key ladder ------------------------------------------------------------------------------
  logic [127:0] device_id_q;
  logic [7:0]   slot_q, margin_q;
  logic [3:0]   slots_q, made_q;  // wanted, and made so far
  logic         ladder_start, ladder_ready, ladder_done, ladder_valid, ladder_last;
  logic [3:0]   ladder_op;
  logic [2:0]   ladder_bytes;
  logic [31:0]  ladder_data;
  logic [255:0] digest;

  always_comb begin
    ladder_start = 1'b0;
    ladder_op    = LadderExtract;
    ladder_valid = 1'b0;
    ladder_data  = resp_word;
    ladder_bytes = 3'd4;
    ladder_last  = 1'b0;
    unique case (state_q)
      EnExtract: begin
        ladder_start = enter_q;
        ladder_valid = addr_q != 9'(NumRows);
        ladder_last  = addr_q == 9'(NumRows - 1);
        ladder_bytes = ladder_last ? 3'd3 : 3'd4;
      end
      EnMacKey: begin
        ladder_start = enter_q;
        ladder_op    = LadderMacKey;
      end
      EnMac: begin
        ladder_start = enter_q;
        ladder_op    = LadderMac;
        ladder_data  = helper_q;
        ladder_valid = fresh_q && addr_q != HelperTagWord;
        ladder_last  = addr_q == HelperTagWord - 9'd1;
      end
      EnKek: begin
        ladder_start = enter_q;
        ladder_op    = LadderRoot;
      end
      default: ;
    endcase
  end

  lk_key_ladder #(.ExportRoot(1'b1)) u_ladder (
    .clk_i,
    .rst_ni,
    .wipe_i      (wipe_all || state_q == EnBurnBit),
    .wipe_work_i (1'b0),
    .start_i     (ladder_start),
    .op_i        (ladder_op),
    .salt_i      ({HelperFormat, device_id_q}),
    .slot_i      (slot_q + 8'(made_q)),
    .epoch_i     (32'd0),
    .in_valid_i  (ladder_valid),
    .in_ready_o  (ladder_ready),
    .in_data_i   (ladder_data),
    .in_bytes_i  (ladder_bytes),
    .in_last_i   (ladder_last),
    .done_o      (ladder_done),
    .digest_o    (digest)
  );

  // ---- what goes into the helper data ----------------------------------------------------------
  always_comb begin
    helper_we = 1'b0;
    wr_addr   = 9'(walk_q);
    wr_data   = '0;
    unique case (state_q)
      EnHeader: begin
        helper_we = 1'b1;
        unique case (walk_q)
          6'd0:    wr_data = HelperMagic;
          6'd1:    wr_data = HelperFormat;
          6'd2, 6'd3, 6'd4, 6'd5: begin
            helper_we = trng_valid_i;
            wr_data   = trng_data_i;
          end
          6'd6:    wr_data = {24'd0, margin_q};
          default: wr_data = '0;
        endcase
      end
      EnMask: begin
        helper_we = 1'b1;
        wr_addr   = addr_q;
        wr_data   = sel_rd_mask_i[32*walk_q[1:0] +: 32];
      end
      EnCode: begin
        helper_we = enc_take;
        wr_addr   = HelperOffsetWord + 9'(bit_q[10:5]);
        wr_data   = acc_new;
      end
      EnTag: begin
        helper_we = 1'b1;
        wr_addr   = HelperTagWord + 9'(walk_q[2:0]);
        wr_data   = digest[32*walk_q[2:0] +: 32];
      end
      default: ;
    endcase
  end

  // ---- control ---------------------------------------------------------------------------------
  logic accept, walk_hold, fail;
  assign hung = timer_q == 32'(Timeout);

  always_comb begin
    state_d   = state_q;
    err_d     = err_q;
    addr_d    = addr_q;
    accept    = 1'b0;
    walk_hold = 1'b0;
    fail      = 1'b0;

    unique case (state_q)
      EnIdle, EnFailed: begin
        if (cmd_valid_i && cmd_i == CmdEnrol) begin
          // SEC_CM: ENROL.ONCE
          if (fuse_enrolled_i) begin
            err_d = KeyErrAlreadyEnrolled;
          end else if (fuse_lc_state_i != lk_lc_pkg::LcOpen) begin
            err_d = KeyErrLifeCycle;
          end else if (puf_busy_i || sel_busy_i) begin
            err_d = KeyErrIllegalCommand;  // an enrolment that was zeroised still holds the sampler
          end else if (slots_i == '0 || slots_i > 4'(OwnerSlots) ||
                       9'(slot_i) + 9'(slots_i) > 9'(OwnerSlots)) begin
            err_d = KeyErrSlot;
          end else begin
            accept  = 1'b1;
            err_d   = KeyErrNone;
            state_d = EnSelect;
          end
        end else if (cmd_valid_i && cmd_i != CmdZeroise) begin
          err_d = KeyErrIllegalCommand;
        end
      end
      EnExport: begin
        if (kek_taken_i || (cmd_valid_i && cmd_i == CmdKekTaken)) state_d = EnZeroDone;
        else if (cmd_valid_i && cmd_i != CmdZeroise) err_d = KeyErrIllegalCommand;
      end
      EnDone: if (cmd_valid_i && cmd_i != CmdZeroise) err_d = KeyErrIllegalCommand;
      EnLocked: ;

      EnZeroIdle:   if (walk_q == 6'd63) state_d = EnIdle;
      EnZeroFailed: if (walk_q == 6'd63) state_d = EnFailed;
      EnZeroLocked: if (walk_q == 6'd63) state_d = EnLocked;
      EnZeroDone:   if (walk_q == 6'd63) state_d = EnDone;

      EnSelect: begin
        if (sel_done_i) begin
          state_d = EnHeader;
          if (sel_fail_i) begin
            err_d   = KeyErrTooFewReliable;
            state_d = EnZeroFailed;
          end
        end
      end
      EnHeader: begin
        walk_hold = walk_q >= 6'd2 && walk_q <= 6'd5 && !trng_valid_i;
        addr_d    = HelperMaskWord;
        if (walk_q == 6'd7) state_d = EnRow;
      end
      EnRow: if (!enter_q) state_d = EnMask;  // the row comes a cycle after its address
      EnMask: begin
        addr_d = addr_q + 9'd1;
        if (walk_q == 6'd2) state_d = EnScan;
      end
      EnScan: begin
        if (scan_q == 7'd95) begin
          state_d = (row_q == 6'd63) ? EnCode : EnRow;
          // Fewer or more bits than the code needs would be a broken selection.
          if (row_q == 6'd63 && bit_q + 11'(mask_sr_q[0]) != 11'(ResponseBits)) begin
            err_d   = KeyErrTooFewReliable;
            state_d = EnZeroFailed;
          end
        end
      end
      EnCode: begin
        if (enc_take && bit_q == 11'(ResponseBits - 1)) begin
          addr_d  = '0;
          state_d = EnExtract;
          if (!enc_out_last) fail = 1'b1;
        end
      end
      EnExtract: begin
        if (ladder_valid && ladder_ready) addr_d = addr_q + 9'd1;
        if (ladder_done) state_d = EnScrub;
      end
      EnScrub: if (walk_q == 6'd63) state_d = EnMacKey;
      EnMacKey: begin
        if (ladder_done) begin
          addr_d  = '0;
          state_d = EnMac;
        end
      end
      EnMac: begin
        if (ladder_valid && ladder_ready) addr_d = addr_q + 9'd1;
        if (ladder_done) state_d = EnTag;
      end
      EnTag: if (walk_q == 6'd7) state_d = EnKek;
      EnKek: if (ladder_done) state_d = EnKeep;
      EnKeep: if (walk_q == 6'd7) state_d = (made_q + 4'd1 == slots_q) ? EnBurnBit : EnKek;
      EnBurnBit:   if (fuse_enrolled_i) state_d = EnBurnState;
      EnBurnState: if (fuse_lc_state_i == lk_lc_pkg::LcEnrolled) state_d = EnExport;

      default: begin  // SEC_CM: ENROL.FSM.TRAP
        err_d   = KeyErrLockedOut;
        state_d = EnZeroLocked;
      end
    endcase

    if (fail || (hung && !parked && !zeroing)) begin
      err_d   = KeyErrPufHealth;
      state_d = EnZeroFailed;
    end
    if (cmd_valid_i && !parked) begin
      if (cmd_i != CmdZeroise || state_q == EnBurnBit || state_q == EnBurnState) begin
        if (err_d == err_q) err_d = KeyErrIllegalCommand;
      end
    end
    if (cmd_valid_i && cmd_i == CmdZeroise && !zeroing && state_q != EnLocked &&
        state_q != EnBurnBit && state_q != EnBurnState) begin
      err_d   = KeyErrNone;
      state_d = EnZeroIdle;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q    <= EnIdle;
      enter_q    <= 1'b0;
      err_q      <= KeyErrNone;
      addr_q     <= '0;
      fresh_q    <= 1'b0;
      walk_q     <= '0;
      timer_q    <= '0;
      readable_q <= 1'b0;
    end else begin
      state_q    <= state_d;
      enter_q    <= state_d != state_q;
      err_q      <= err_d;
      addr_q     <= addr_d;
      fresh_q    <= addr_d == addr_q && !readable;
      readable_q <= readable && rd_addr_i < 9'(HelperWords);
      if (state_d != state_q) walk_q <= '0;
      else if (walk_q != 6'd63 && !walk_hold) walk_q <= walk_q + 6'd1;
      if (state_d != state_q || trng_valid_i) timer_q <= '0;
      else if (!parked && !hung) timer_q <= timer_q + 32'd1;
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      bit_q       <= '0;
      acc_q       <= '0;
      mask_sr_q   <= '0;
      resp_sr_q   <= '0;
      scan_q      <= '0;
      row_q       <= '0;
      rand_q      <= '0;
      rand_left_q <= '0;
    end else if (scrub) begin
      bit_q       <= '0;
      acc_q       <= '0;
      mask_sr_q   <= '0;
      resp_sr_q   <= '0;
      scan_q      <= '0;
      row_q       <= '0;
      rand_q      <= '0;
      rand_left_q <= '0;
    end else begin
      if (state_q == EnMask) begin
        mask_sr_q <= sel_rd_mask_i;
        resp_sr_q <= sel_rd_resp_i;
        scan_q    <= '0;
      end
      if (state_q == EnScan) begin
        mask_sr_q <= mask_sr_q >> 1;
        resp_sr_q <= resp_sr_q >> 1;
        scan_q    <= scan_q + 7'd1;
        if (scan_q == 7'd95) row_q <= row_q + 6'd1;
        if (mask_sr_q[0]) begin
          acc_q <= acc_new;
          bit_q <= bit_q + 11'd1;
        end
        if (state_d == EnCode) bit_q <= '0;
      end
      if (state_q == EnCode) begin
        if (rand_left_q == '0) begin
          if (trng_valid_i) begin
            rand_q      <= trng_data_i;
            rand_left_q <= 6'd32;
          end
        end else if (enc_in_ready) begin
          rand_q      <= rand_q >> 1;
          rand_left_q <= rand_left_q - 6'd1;
        end
        if (enc_take) begin
          acc_q <= acc_new;
          bit_q <= bit_q + 11'd1;
        end
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      device_id_q <= '0;
      slot_q      <= '0;
      slots_q     <= '0;
      made_q      <= '0;
      margin_q    <= '0;
    end else begin
      if (accept) begin
        slot_q  <= slot_i;
        slots_q <= slots_i;
        made_q  <= '0;
      end
      if (state_q == EnSelect && sel_done_i) margin_q <= sel_margin_i;
      if (state_q == EnHeader && walk_q >= 6'd2 && walk_q <= 6'd5 && trng_valid_i) begin
        device_id_q <= {trng_data_i, device_id_q[127:32]};
      end
      if (state_q == EnKeep && walk_q == 6'd7) made_q <= made_q + 4'd1;
    end
  end

  // ---- roots of the slots (secret), eight words each -------------------------------------------
  logic [31:0] kek_mem [64];
  always_ff @(posedge clk_i) begin
    if (scrub) kek_mem[walk_q] <= '0;
    else if (state_q == EnKeep) kek_mem[{made_q[2:0], walk_q[2:0]}] <= digest[32*walk_q[2:0] +: 32];
  end

  // ---- outputs ---------------------------------------------------------------------------------
  assign busy_o               = !parked;
  assign err_o                = err_q;
  assign margin_o             = margin_q;
  assign lc_state_o           = fuse_lc_state_i;
  // SEC_CM: ENROL.EXPORT.ONCE
  assign kek_valid_o          = state_q == EnExport;
  assign kek_rdata_o          = kek_valid_o && 4'(kek_rd_addr_i[5:3]) < made_q ?
                                kek_mem[kek_rd_addr_i] : '0;
  assign fuse_prog_enrolled_o = state_q == EnBurnBit && enter_q;
  assign fuse_prog_lc_o       = state_q == EnBurnState && enter_q;
  assign fuse_prog_lc_state_o = lk_lc_pkg::LcEnrolled;

  always_comb begin
    unique case (state_q)
      EnIdle:   state_o = KeyStateIdle;
      EnExport: state_o = KeyStateStarted;
      EnDone:   state_o = KeyStateKeyLoaded;
      EnFailed: state_o = KeyStateFailed;
      EnLocked: state_o = KeyStateLocked;
      default:  state_o = KeyStateBusy;
    endcase
  end

`ifdef VERILATOR
  // verilator lint_off SYNCASYNCNET
  assert property (@(posedge clk_i) disable iff (!rst_ni)
      kek_valid_o |-> fuse_enrolled_i && fuse_lc_state_i == lk_lc_pkg::LcEnrolled)
    else $error("%m: the owner key is out before the fuses are burnt");
  // verilator lint_on SYNCASYNCNET
`endif
endmodule
