// Key block of the operate build: from PUF responses to the model key.
//
// START    checks the fuses and the public form of the helper data, samples the PUF, gathers the
//          2,040 masked response bits, corrects them through lk_bch_decoder, extracts the PRK and
//          verifies the helper data's tag under a key made from it. Only the PRK is kept. A word is
//          decoded while the PUF reads the next ones; the words come in ascending order.
// UNWRAP   checks the manifest's public fields, derives the owner KEK of its slot and epoch from
//          the root of the slot, opens the wrapped key and compares SHA-256(manifest) with the hash
//          inside it; then, when the former users have been wiped, presents the model key.
// ATTEST   answers a challenge with an HMAC under the slot's attestation key over the challenge,
//          device, build, configuration, life cycle and the slot's floors (lk_key_pkg).
// NONCE    draws a nonce for one ticket.
// TICKET   checks a ticket of the slot's owner: the nonce, then its HMAC under the slot's ticket
//          key; burns its lowest version and epoch into the slot's floors and starts its budget of
//          runs and time. These three work only between START and UNWRAP.
// ZEROISE  forgets every secret, at any time, also in the middle of another command.
//
// Commands go in with one pulse of `cmd_valid_i`; illegal ones set the reason and nothing else.
// Helper data (272 words), manifest (32), wrapped key (14) and message (challenge 9, ticket 20) are
// written through four windows, each with its own counter; `fill_clear_i` rewinds all; a count that
// is not exact fails the command that needs the window, and so does a write while busy. Commands,
// states, reasons and the manifest's layout are in lk_pkg, the rest in lk_key_pkg.
//
// Every failure but an illegal command wipes everything, a loaded model key included. What depends
// on secrets (decoding, tag, unwrapping, manifest hash) is judged at one point, after the full
// work, and reported as KeyErrKeyFailure alone; its time depends on public data only. Three failed
// starts, a page that failed authentication (`tamper_i`) or a broken state lock the block until
// reset. A success does not give failed starts back.
//
// A package whose manifest says so loads only under a ticket of its slot. A loaded package of a
// ticket's slot stays loaded for the ticket's runs (`run_start_i`, a pulse as one begins) and time
// (units of 2^20 cycles from its acceptance); then everything is wiped (KeyErrTicketExpired).
//
// `wipe_o` pulses four cycles (ZEROISE, failure, new UNWRAP) or stays (locked); users of the key
// must drop what they hold and raise `wipe_busy_i` before it falls. `key_valid_o` waits for them.
// `manifest_o` means something only with `manifest_valid_o`. No response, PRK or key reaches any
// output but `key_o`; of digests only an attestation does (`attest_o`).
module lk_key_block #(
  parameter logic [31:0] ConfigId = 32'd0,
  // Longest time from the start of the PUF to the end of decoding, in cycles.
  parameter int unsigned PufTimeout = 1 << 20
) (
  input  logic          clk_i,
  input  logic          rst_ni,
  // command and public status
  input  logic          cmd_valid_i,
  input  logic [3:0]    cmd_i,
  output logic          busy_o,
  output logic [3:0]    state_o,
  output logic [7:0]    err_o,
  // windows
  input  logic          helper_we_i,
  input  logic          manifest_we_i,
  input  logic          blob_we_i,
  input  logic          msg_we_i,
  input  logic [31:0]   wdata_i,
  input  logic          fill_clear_i,
  // what an attestation says of the build
  input  logic [31:0]   build_hash_i,
  input  logic [31:0]   build_flags_i,
  // answers, public
  output logic [255:0]  attest_o,
  output logic [127:0]  nonce_o,
  output logic [31:0]   runs_left_o,
  output logic [31:0]   time_left_o,
  // the rest of the chip
  input  logic          run_start_i,
  input  logic          tamper_i,
  output logic          wipe_o,
  input  logic          wipe_busy_i,
  output logic          key_valid_o,
  output logic [127:0]  key_o,
  output logic          manifest_valid_o,
  output logic [1023:0] manifest_o,
  output logic [31:0]   start_cycles_o,
  output logic [15:0]   unstable_o,
  output logic [31:0]   min_version_o,
  output logic [15:0]   lc_state_o,
  // PUF sampler
  output logic          puf_start_o,
  input  logic          puf_resp_valid_i,
  input  logic [5:0]    puf_resp_idx_i,
  input  logic [95:0]   puf_resp_i,
  input  logic          puf_done_i,
  input  logic          puf_health_fail_i,
  input  logic [15:0]   puf_unstable_i,
  // random numbers
  output logic          trng_req_o,
  input  logic          trng_valid_i,
  input  logic [31:0]   trng_data_i,
  // fuses; the floors are those of fuse_slot_o
  input  logic [15:0]   fuse_lc_state_i,
  input  logic          fuse_enrolled_i,
  input  logic [31:0]   fuse_min_version_i,
  output logic [2:0]    fuse_slot_o,
  input  logic [31:0]   fuse_floor_version_i,
  input  logic [31:0]   fuse_floor_epoch_i,
  output logic          fuse_prog_floor_o,
  output logic [31:0]   fuse_floor_version_o,
  output logic [31:0]   fuse_floor_epoch_o
);
  import lk_pkg::*;
  import lk_key_pkg::*;

  key_fsm_e   state_q, state_d;
  logic       enter_q;  // first cycle of a state
  logic [7:0] err_q, err_d;

  logic parked, zeroing, running;
  assign parked  = state_q == StIdle || state_q == StStarted || state_q == StLoaded ||
                   state_q == StFailed || state_q == StLocked;
  assign zeroing = state_q == StZeroIdle || state_q == StZeroFailed || state_q == StZeroLocked;
  assign running = !parked && !zeroing;

  // Everything secret is forgotten while `wipe_all` is high, for at least 64 cycles.
  // SEC_CM: KEY.WIPE
  logic wipe_all, scrub;
  assign wipe_all = zeroing || state_q == StLocked;
  assign scrub    = wipe_all || state_q == StScrub;

  // ---- windows ---------------------------------------------------------------------------------
  logic [31:0] helper_mem [512];
  logic [31:0] manifest_mem [ManifestWords];
  logic [31:0] blob_mem [16];
  logic [31:0] msg_mem [32];
  logic [8:0]  helper_fill_q;
  logic [5:0]  manifest_fill_q;
  logic [3:0]  blob_fill_q;
  logic [4:0]  msg_fill_q;
  logic        helper_over_q, manifest_over_q, blob_over_q, msg_over_q;
  logic        helper_we, manifest_we, blob_we, msg_we;

  assign helper_we   = helper_we_i && !busy_o && helper_fill_q != 9'(HelperWords);
  assign manifest_we = manifest_we_i && !busy_o && manifest_fill_q != 6'(ManifestWords);
  assign blob_we     = blob_we_i && !busy_o && blob_fill_q != 4'(BlobWords);
  assign msg_we      = msg_we_i && !busy_o && msg_fill_q != 5'(TicketWords);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      helper_fill_q   <= '0;
      manifest_fill_q <= '0;
      blob_fill_q     <= '0;
      helper_over_q   <= 1'b0;
      manifest_over_q <= 1'b0;
      blob_over_q     <= 1'b0;
      msg_fill_q      <= '0;
      msg_over_q      <= 1'b0;
    end else if (fill_clear_i) begin
      // A command that runs keeps its words; what comes after finds the counters empty.
      helper_fill_q   <= '0;
      manifest_fill_q <= '0;
      blob_fill_q     <= '0;
      helper_over_q   <= 1'b0;
      manifest_over_q <= 1'b0;
      blob_over_q     <= 1'b0;
      msg_fill_q      <= '0;
      msg_over_q      <= 1'b0;
    end else begin
      if (helper_we) helper_fill_q <= helper_fill_q + 9'd1;
      if (manifest_we) manifest_fill_q <= manifest_fill_q + 6'd1;
      if (blob_we) blob_fill_q <= blob_fill_q + 4'd1;
      if (helper_we_i && !helper_we) helper_over_q <= 1'b1;
      if (manifest_we_i && !manifest_we) manifest_over_q <= 1'b1;
      if (blob_we_i && !blob_we) blob_over_q <= 1'b1;
      if (msg_we) msg_fill_q <= msg_fill_q + 5'd1;
      if (msg_we_i && !msg_we) msg_over_q <= 1'b1;
    end
  end

  logic helper_full, manifest_full, blob_full, challenge_full, ticket_full;
  assign helper_full   = helper_fill_q == 9'(HelperWords) && !helper_over_q;
  assign manifest_full = manifest_fill_q == 6'(ManifestWords) && !manifest_over_q;
  assign blob_full     = blob_fill_q == 4'(BlobWords) && !blob_over_q;
  assign challenge_full = msg_fill_q == 5'(ChallengeWords) && !msg_over_q;
  assign ticket_full    = msg_fill_q == 5'(TicketWords) && !msg_over_q;

  // Helper data is read at `addr_q`; `fresh_q` says that `helper_q` is the word at this address.
  logic [8:0]  addr_q, addr_d;
  logic        fresh_q;
  logic [31:0] helper_q;
  always_ff @(posedge clk_i) begin
    if (helper_we) helper_mem[helper_fill_q] <= wdata_i;
    helper_q <= helper_mem[addr_q];
  end
  always_ff @(posedge clk_i) begin
    if (manifest_we) manifest_mem[manifest_fill_q[4:0]] <= wdata_i;
    if (blob_we) blob_mem[blob_fill_q] <= wdata_i;
    if (msg_we) msg_mem[msg_fill_q] <= wdata_i;
  end

  // ---- response and code word memories (secret) ------------------------------------------------
  logic [95:0] resp_mem [NumRows];
  logic [31:0] cw_mem [NumRows];
  logic [5:0]  walk_q;
  logic        resp_we, cw_we;
  logic [31:0] cw_new;
  logic [5:0]  row_q;
  logic [10:0] out_q;      // code word bits received
  logic [31:0] cw_acc_q;

  always_ff @(posedge clk_i) begin
    if (scrub) resp_mem[walk_q] <= '0;
    else if (resp_we) resp_mem[puf_resp_idx_i] <= puf_resp_i;
  end
  always_ff @(posedge clk_i) begin
    if (scrub) cw_mem[walk_q] <= '0;
    else if (cw_we) cw_mem[out_q[10:5]] <= cw_new;
  end

  logic decoding, hung;

  // ---- PUF -------------------------------------------------------------------------------------
  logic        puf_running_q;   // survives a ZEROISE: the sampler cannot be interrupted
  logic        sampling_q;      // the reading is this START's and still under way
  logic        sampling;
  logic [6:0]  rows_q;
  logic [31:0] timer_q;
  assign puf_start_o = state_q == StPufStart && !puf_running_q;
  assign sampling    = sampling_q && (state_q == StPufWait || decoding);
  assign resp_we     = sampling && puf_resp_valid_i;

  // ---- masked bits into the decoder ------------------------------------------------------------
  logic [31:0] mask_sr_q, resp_sr_q, off_sr_q;
  logic [5:0]  mask_left_q, off_left_q;
  logic [1:0]  part_q;          // word of the row
  logic [7:0]  mask_word_q;     // 0..192
  logic [6:0]  off_word_q;
  logic        dec_in_valid, dec_in_ready, dec_out_valid, dec_out_bit, dec_out_last, dec_fail;
  logic        dec_bad_q;
  logic [7:0]  block_pos_q;

  assign dec_in_valid = state_q == StScan && mask_left_q != '0 && mask_sr_q[0] &&
                        off_left_q != '0;

  lk_bch_decoder u_decoder (
    .clk_i,
    .rst_ni,
    .clear_i     (scrub || state_q == StPufStart),
    .in_valid_i  (dec_in_valid),
    .in_ready_o  (dec_in_ready),
    .in_bit_i    (resp_sr_q[0] ^ off_sr_q[0]),
    .out_valid_o (dec_out_valid),
    .out_bit_o   (dec_out_bit),
    .out_last_o  (dec_out_last),
    .fail_o      (dec_fail)
  );

  assign cw_new = (out_q[4:0] == '0 ? '0 : cw_acc_q) | (32'(dec_out_bit) << out_q[4:0]);
  assign decoding = state_q == StMaskLoad || state_q == StOffsetLoad || state_q == StScan ||
                    state_q == StDecodeWait;
  assign hung     = timer_q == 32'(PufTimeout);
  assign cw_we    = decoding && dec_out_valid && out_q != 11'(ResponseBits);

  // ---- key ladder ------------------------------------------------------------------------------
  logic [127:0]  device_id_q;
  logic [1023:0] manifest_q;
  manifest_t     manifest;
  logic          unused_manifest;
  assign manifest        = manifest_t'(manifest_q);
  assign unused_manifest = ^{manifest.model_id, manifest.max_batch, manifest.expiry,
                             manifest.input_words, manifest.output_words};
  logic          ladder_start, ladder_ready, ladder_done, ladder_valid, ladder_last;
  logic          ladder_wipe_work;
  logic [3:0]    ladder_op;
  logic [2:0]    ladder_bytes;
  logic [31:0]   ladder_data;
  logic [255:0]  digest;
  logic [5:0]    hash_word_q;   // manifest words hashed
  logic          hash_done_q;
  logic [5:0]    cw_idx;

  assign cw_idx = addr_q[5:0] - HelperOffsetWord[5:0];

  // What is attested and what a ticket says, word by word; `msg_word` is the word of the window.
  logic [2:0]   slot_q;        // owner slot of the command
  logic [4:0]   msg_word_q, msg_idx;
  logic [31:0]  msg_word, attest_word;
  logic [127:0] nonce_q;
  always_comb begin
    msg_idx = msg_word_q;
    unique case (state_q)
      StAttLoad:    msg_idx = 5'(ChallengeWords - 1);
      StAttMac:     msg_idx = msg_word_q - 5'd2;
      StTktLoad:    msg_idx = walk_q[4:0];
      StTktCompare: msg_idx = 5'(TicketBodyWords) + walk_q[4:0];
      default: ;
    endcase
  end
  assign msg_word = msg_mem[msg_idx];
  always_comb begin
    unique case (msg_word_q)
      5'd0:    attest_word = AttestMagic;
      5'd1:    attest_word = FormatVersion;
      5'd10:   attest_word = {29'd0, slot_q};
      5'd11:   attest_word = device_id_q[31:0];
      5'd12:   attest_word = device_id_q[63:32];
      5'd13:   attest_word = device_id_q[95:64];
      5'd14:   attest_word = device_id_q[127:96];
      5'd15:   attest_word = BuildVersion;
      5'd16:   attest_word = build_hash_i;
      5'd17:   attest_word = build_flags_i;
      5'd18:   attest_word = ConfigId;
      5'd19:   attest_word = {16'd0, fuse_lc_state_i};
      5'd20:   attest_word = fuse_min_version_i;
      5'd21:   attest_word = fuse_floor_version_i;
      5'd22:   attest_word = fuse_floor_epoch_i;
      default: attest_word = msg_word;
    endcase
  end

  always_comb begin
    ladder_start = 1'b0;
    ladder_op    = LadderHash;
    ladder_valid = 1'b0;
    ladder_data  = helper_q;
    ladder_bytes = 3'd4;
    ladder_last  = 1'b0;
    unique case (state_q)
      StExtract: begin
        ladder_start = enter_q;
        ladder_op    = LadderExtract;
        ladder_valid = fresh_q && addr_q != HelperTagWord;
        ladder_data  = helper_q ^ cw_mem[cw_idx];  // corrected response = code word ^ offset
        ladder_last  = addr_q == HelperTagWord - 9'd1;
        ladder_bytes = ladder_last ? 3'd3 : 3'd4;  // 255 bytes
      end
      StMacKey: begin
        ladder_start = enter_q;
        ladder_op    = LadderMacKey;
      end
      StMac: begin
        ladder_start = enter_q;
        ladder_op    = LadderMac;
        ladder_valid = fresh_q && addr_q != HelperTagWord;
        ladder_last  = addr_q == HelperTagWord - 9'd1;
      end
      StRoot, StAttRoot, StTktRoot: begin
        ladder_start = enter_q;
        ladder_op    = LadderRoot;
      end
      StAttKey: begin
        ladder_start = enter_q;
        ladder_op    = LadderAttestKey;
      end
      StTktKey: begin
        ladder_start = enter_q;
        ladder_op    = LadderTicketKey;
      end
      StAttMac: begin
        ladder_start = enter_q;
        ladder_op    = LadderMac;
        ladder_valid = msg_word_q != 5'(AttestWords);
        ladder_data  = attest_word;
        ladder_last  = msg_word_q == 5'(AttestWords - 1);
      end
      StTktMac: begin
        ladder_start = enter_q;
        ladder_op    = LadderMac;
        ladder_valid = msg_word_q != 5'(TicketBodyWords);
        ladder_data  = msg_word;
        ladder_last  = msg_word_q == 5'(TicketBodyWords - 1);
      end
      StKek: begin
        ladder_start = enter_q;
        ladder_op    = LadderKek;
      end
      StUnwrap: begin
        // The unwrapper took the KEK in the first cycle; the ladder may forget it in the second.
        ladder_start = !enter_q && hash_word_q == '0 && !hash_done_q;
        ladder_valid = hash_word_q != '0 && hash_word_q <= 6'(ManifestWords);
        ladder_data  = manifest_q[31:0];
        ladder_last  = hash_word_q == 6'(ManifestWords);
      end
      default: ;
    endcase
  end
  assign ladder_wipe_work = state_q == StStartVerdict || state_q == StPresent ||
                            state_q == StTktBurn || (state_q == StAttMac && ladder_done);

  lk_key_ladder u_ladder (
    .clk_i,
    .rst_ni,
    .wipe_i      (wipe_all),
    .wipe_work_i (ladder_wipe_work),
    .start_i     (ladder_start),
    .op_i        (ladder_op),
    .salt_i      ({HelperFormat, device_id_q}),
    .slot_i      ({5'd0, slot_q}),
    .epoch_i     (manifest.epoch),
    .in_valid_i  (ladder_valid),
    .in_ready_o  (ladder_ready),
    .in_data_i   (ladder_data),
    .in_bytes_i  (ladder_bytes),
    .in_last_i   (ladder_last),
    .done_o      (ladder_done),
    .digest_o    (digest)
  );

  // ---- key unwrapping --------------------------------------------------------------------------
  logic [7:0]   kwp_idx;
  logic         kwp_done, kwp_ok, kwp_busy;
  logic [383:0] kwp_pt;

  lk_aes256_kwp #(.NumSemiblocks(6), .PlainBytes(48)) u_kwp (
    .clk_i,
    .rst_ni,
    .wipe_i    (wipe_all || state_q == StLoaded),
    .start_i   (state_q == StUnwrap && enter_q),
    .key_i     (digest),
    .ct_idx_o  (kwp_idx),
    .ct_word_i (blob_mem[kwp_idx[3:0]]),
    .busy_o    (kwp_busy),
    .done_o    (kwp_done),
    .ok_o      (kwp_ok),
    .pt_o      (kwp_pt)
  );
  logic unused_kwp;
  assign unused_kwp = ^{kwp_busy, kwp_idx[7:4]};

  // ---- comparison, a word a cycle, judged twice ------------------------------------------------
  // SEC_CM: KEY.COMPARE.DUPLICATED
  logic        comparing;
  logic [2:0]  cmp_idx;
  logic [31:0] cmp_x, cmp_y;
  logic        differ_q;   // some word differed
  logic [3:0]  equal_q;    // words that were equal
  logic        match_flag, match_count;  // verdicts of their own, both needed

  assign comparing = (state_q == StTagCompare && fresh_q) || state_q == StUnwrapCompare ||
                     state_q == StTktCompare;
  assign cmp_idx   = (state_q == StTagCompare) ? addr_q[2:0] : walk_q[2:0];
  always_comb begin
    cmp_x = '0;
    cmp_y = '0;
    if (comparing) begin
      cmp_x = digest[32*cmp_idx +: 32];
      unique case (state_q)
        StTagCompare: cmp_y = helper_q;
        StTktCompare: cmp_y = msg_word;
        default:      cmp_y = kwp_pt[128 + 32*cmp_idx +: 32];
      endcase
    end
  end
  assign match_flag  = !differ_q;
  assign match_count = equal_q == 4'd8;

  // ---- public checks ---------------------------------------------------------------------------
  logic [12:0] weight_q;
  logic        helper_bad_q;
  logic        lc_ok;
  // SEC_CM: KEY.LIFECYCLE
  assign lc_ok = fuse_enrolled_i && fuse_lc_state_i == lk_lc_pkg::LcEnrolled;

  logic [7:0]  helper_popcount;
  always_comb begin
    helper_popcount = '0;
    if (state_q == StHelperScan) begin
      for (int i = 0; i < 32; i++) helper_popcount += 8'(helper_q[i]);
    end
  end

  logic helper_word_bad;
  always_comb begin
    helper_word_bad = 1'b0;
    unique case (addr_q)
      9'd0:                  helper_word_bad = helper_q != HelperMagic;
      9'd1:                  helper_word_bad = helper_q != HelperFormat;
      9'd7:                  helper_word_bad = helper_q != '0;
      HelperTagWord - 9'd1:  helper_word_bad = helper_q[31:24] != '0;
      default: ;
    endcase
  end

  logic manifest_bad;
  always_comb begin
    manifest_bad = 1'b0;
    if (state_q == StManifestCheck) begin
      manifest_bad = manifest.magic != ManifestMagic || manifest.format != FormatVersion ||
                     manifest.num_pages == '0 || manifest.desc_pages == '0 ||
                     manifest.desc_pages > manifest.num_pages || manifest.num_descs == '0 ||
                     manifest.lock_kinds != LockAes128Gcm || manifest.slot >= OwnerSlots ||
                     manifest.licence_flags[31:1] != '0 || manifest.reserved != '0;
    end
  end

  // ---- tickets ---------------------------------------------------------------------------------
  // A ticket counts while its code is exactly TktGood; no flipped bit makes one of another value.
  // SEC_CM: KEY.TICKET.BUDGET
  localparam logic [3:0] TktNone = 4'b0011, TktGood = 4'b1100;
  logic [3:0]  ticket_q;
  logic [2:0]  ticket_slot_q;
  logic        nonce_valid_q, msg_bad_q, msg_stale_q, bound_q;
  logic [2:0]  nonce_left_q;
  logic [31:0] tkt_version_q, tkt_epoch_q;
  logic [31:0] tkt_runs_q, tkt_time_q;  // of the ticket, then what is left
  logic [19:0] tick_q;
  logic        ticket_ok, ticket_mine, ticket_other, overrun, time_up;

  assign ticket_ok   = ticket_q == TktGood;
  assign ticket_mine = ticket_ok && ticket_slot_q == manifest.slot[2:0];
  // The other way round and from the registers: a package passes with the one and not the other.
  assign ticket_other = ticket_q != TktGood || ticket_slot_q != manifest.slot[2:0];
  assign overrun     = run_start_i && bound_q && ticket_ok && tkt_runs_q == '0;
  assign time_up     = ticket_ok && tkt_time_q == '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      slot_q        <= '0;
      msg_word_q    <= '0;
      nonce_q       <= '0;
      nonce_valid_q <= 1'b0;
      nonce_left_q  <= '0;
      msg_bad_q     <= 1'b0;
      msg_stale_q   <= 1'b0;
      bound_q       <= 1'b0;
      ticket_q      <= TktNone;
      ticket_slot_q <= '0;
      tkt_version_q <= '0;
      tkt_epoch_q   <= '0;
      tkt_runs_q    <= '0;
      tkt_time_q    <= '0;
      tick_q        <= '0;
    end else begin
      if (state_q == StAttLoad) slot_q <= msg_word[2:0];
      if (state_q == StManifestCheck) begin
        slot_q  <= manifest.slot[2:0];
        bound_q <= ticket_mine;
      end
      if (state_q != StAttMac && state_q != StTktMac) msg_word_q <= '0;
      else if (ladder_valid && ladder_ready) msg_word_q <= msg_word_q + 5'd1;

      if (state_q == StStarted) nonce_left_q <= 3'd4;
      if (state_q == StNonce) begin
        if (enter_q) nonce_valid_q <= 1'b0;
        if (trng_valid_i && nonce_left_q != '0) begin
          nonce_q       <= {trng_data_i, nonce_q[127:32]};
          nonce_left_q  <= nonce_left_q - 3'd1;
          nonce_valid_q <= nonce_left_q == 3'd1;
        end
      end

      if (state_q == StTktLoad) begin
        if (enter_q) begin
          msg_bad_q   <= 1'b0;
          msg_stale_q <= !nonce_valid_q;
          ticket_q    <= TktNone;
        end
        unique case (walk_q[4:0])
          5'd0:  if (msg_word != TicketMagic) msg_bad_q <= 1'b1;
          5'd1:  if (msg_word != FormatVersion) msg_bad_q <= 1'b1;
          5'd2:  if (msg_word != nonce_q[31:0]) msg_stale_q <= 1'b1;
          5'd3:  if (msg_word != nonce_q[63:32]) msg_stale_q <= 1'b1;
          5'd4:  if (msg_word != nonce_q[95:64]) msg_stale_q <= 1'b1;
          5'd5:  if (msg_word != nonce_q[127:96]) msg_stale_q <= 1'b1;
          5'd6: begin
            slot_q <= msg_word[2:0];
            if (msg_word >= OwnerSlots) msg_bad_q <= 1'b1;
          end
          5'd7:  tkt_version_q <= msg_word;
          5'd8:  tkt_epoch_q <= msg_word;
          5'd9:  tkt_runs_q <= msg_word;
          5'd10: tkt_time_q <= msg_word;
          5'd11: if (msg_word != '0) msg_bad_q <= 1'b1;
          default: ;
        endcase
      end
      // Whatever becomes of the ticket, its nonce has served. SEC_CM: KEY.TICKET.NONCE
      if (state_q == StTktCheck) nonce_valid_q <= 1'b0;
      if (state_q == StTktBurn && state_d == StStarted) begin
        ticket_q      <= TktGood;
        ticket_slot_q <= slot_q;
        tick_q        <= '0;
      end
      if (ticket_ok && state_q != StTktLoad) begin
        tick_q <= tick_q + 20'd1;
        if (tick_q == '1 && tkt_time_q != NoLimit && tkt_time_q != '0) begin
          tkt_time_q <= tkt_time_q - 32'd1;
        end
        if (run_start_i && bound_q && state_q == StLoaded && tkt_runs_q != NoLimit &&
            tkt_runs_q != '0) begin
          tkt_runs_q <= tkt_runs_q - 32'd1;
        end
        if (time_up || overrun) ticket_q <= TktNone;
      end
      if (wipe_all) begin
        nonce_valid_q <= 1'b0;
        bound_q       <= 1'b0;
        ticket_q      <= TktNone;
        tkt_version_q <= '0;
        tkt_epoch_q   <= '0;
        tkt_runs_q    <= '0;
        tkt_time_q    <= '0;
      end
    end
  end

  assign trng_req_o           = state_q == StNonce && nonce_left_q != '0;
  assign fuse_slot_o          = state_q == StManifestCheck ? manifest.slot[2:0] : slot_q;
  assign fuse_prog_floor_o    = state_q == StTktBurn && enter_q;
  assign fuse_floor_version_o = tkt_version_q;
  assign fuse_floor_epoch_o   = tkt_epoch_q;

  // The answer to a challenge: the only digest that leaves the block, taken in the only state that
  // makes one over an attestation's words. SEC_CM: KEY.ATTEST.OUT
  logic [255:0] attest_q, attest_digest;
  assign attest_digest = state_q == StAttMac ? digest : '0;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) attest_q <= '0;
    else if (wipe_all || state_q == StAttLoad) attest_q <= '0;
    else if (state_q == StAttMac && ladder_done) attest_q <= attest_digest;
  end

  // ---- control ---------------------------------------------------------------------------------
  logic [2:0] strikes_q;    // one bit a failed start
  logic       strike;
  logic       accept_start, accept_unwrap, illegal;
  logic       fault;

  // Of the strikes only 000, 001, 011, 111 exist. SEC_CM: KEY.LOCKOUT
  assign fault = (strikes_q[2] && !strikes_q[1]) || (strikes_q[1] && !strikes_q[0]);

  always_comb begin
    state_d       = state_q;
    err_d         = err_q;
    addr_d        = addr_q;
    strike        = 1'b0;
    accept_start  = 1'b0;
    accept_unwrap = 1'b0;
    illegal       = 1'b0;

    unique case (state_q)
      StIdle, StStarted, StLoaded, StFailed: begin
        if (cmd_valid_i) begin
          if (cmd_i == CmdStart && (state_q == StIdle || state_q == StFailed)) begin
            accept_start = 1'b1;
            err_d        = KeyErrNone;
            addr_d       = '0;
            state_d      = StHelperScan;
          end else if (cmd_i == CmdUnwrap && (state_q == StStarted || state_q == StLoaded)) begin
            accept_unwrap = 1'b1;
            err_d         = KeyErrNone;
            state_d       = StManifestLoad;
          end else if (state_q == StStarted && (cmd_i == CmdAttest || cmd_i == CmdNonce ||
                                                cmd_i == CmdTicket)) begin
            err_d   = KeyErrNone;
            state_d = cmd_i == CmdAttest ? StAttLoad : cmd_i == CmdNonce ? StNonce : StTktLoad;
          end else if (cmd_i != CmdZeroise) begin
            illegal = 1'b1;
          end
        end
        // A ticket that ended takes what it let in with it.
        if (state_q == StLoaded && bound_q && (!ticket_ok || overrun)) begin
          err_d   = KeyErrTicketExpired;
          state_d = StZeroFailed;
        end
      end
      StLocked: ;

      StZeroIdle:   if (walk_q == 6'd63 && !wipe_busy_i) state_d = StIdle;
      StZeroFailed: if (walk_q == 6'd63 && !wipe_busy_i) state_d = StFailed;
      StZeroLocked: if (walk_q == 6'd63) state_d = StLocked;

      StHelperScan: begin
        if (!lc_ok) begin
          err_d   = KeyErrLifeCycle;
          state_d = StZeroFailed;
        end else if (enter_q && !helper_full) begin
          err_d   = KeyErrHelperMalformed;
          state_d = StZeroFailed;
        end else if (fresh_q) begin
          addr_d = addr_q + 9'd1;
          if (addr_q == HelperLastWord) state_d = StHelperCheck;
        end
      end
      StHelperCheck: begin
        state_d = StPufStart;
        if (helper_bad_q || weight_q != 13'(ResponseBits)) begin
          err_d   = KeyErrHelperMalformed;
          state_d = StZeroFailed;
        end
      end
      StPufStart: if (!puf_running_q) state_d = StPufWait;
      StPufWait: begin
        addr_d = HelperMaskWord;
        if (rows_q != '0) state_d = StMaskLoad;
      end
      StMaskLoad: begin
        if (mask_word_q == 8'd192) begin
          state_d = StDecodeWait;
        end else begin
          addr_d = HelperMaskWord + 9'(mask_word_q);
          if (fresh_q && addr_q == addr_d && rows_q > 7'(row_q)) state_d = StScan;
        end
      end
      StOffsetLoad: begin
        addr_d = HelperOffsetWord + 9'(off_word_q);
        if (fresh_q && addr_q == addr_d) state_d = StScan;
      end
      StScan: begin
        if (mask_left_q == '0) state_d = StMaskLoad;
        else if (mask_sr_q[0] && off_left_q == '0) state_d = StOffsetLoad;
      end
      StDecodeWait: begin
        if (out_q == 11'(ResponseBits) && !sampling_q) begin
          addr_d  = HelperOffsetWord;
          state_d = StExtract;
        end
      end
      StExtract: begin
        if (ladder_valid && ladder_ready) addr_d = addr_q + 9'd1;
        if (ladder_done) state_d = StScrub;
      end
      StScrub: if (walk_q == 6'd63) state_d = StMacKey;
      StMacKey: begin
        if (ladder_done) begin
          addr_d  = '0;
          state_d = StMac;
        end
      end
      StMac: begin
        if (ladder_valid && ladder_ready) addr_d = addr_q + 9'd1;
        if (ladder_done) state_d = StTagCompare;
      end
      StTagCompare: begin
        if (fresh_q) begin
          addr_d = addr_q + 9'd1;
          if (addr_q == HelperLastWord) state_d = StStartVerdict;
        end
      end
      StStartVerdict: begin  // the one place where a start is judged
        state_d = StStarted;
        if (!match_flag || !match_count || dec_bad_q) begin
          err_d   = KeyErrKeyFailure;
          strike  = 1'b1;
          state_d = StZeroFailed;
        end
      end

      StManifestLoad: begin
        if (!lc_ok) begin
          err_d   = KeyErrLifeCycle;
          state_d = StZeroFailed;
        end else if (enter_q && !(manifest_full && blob_full)) begin
          err_d   = KeyErrManifestMalformed;
          state_d = StZeroFailed;
        end else if (walk_q == 6'd31) begin
          state_d = StManifestCheck;
        end
      end
      StManifestCheck: begin
        state_d = StZeroFailed;
        if (manifest_bad) err_d = KeyErrManifestMalformed;
        else if (manifest.config_id != ConfigId) err_d = KeyErrConfigMismatch;
        else if (manifest.device_id != device_id_q) err_d = KeyErrDeviceMismatch;
        // SEC_CM: KEY.FLOOR
        else if (manifest.version < fuse_min_version_i ||
                 manifest.version < fuse_floor_version_i) err_d = KeyErrVersionTooOld;
        else if (manifest.epoch < fuse_floor_epoch_i) err_d = KeyErrEpochTooOld;
        // SEC_CM: KEY.TICKET.REQUIRED
        else if (manifest.licence_flags[0] && (!ticket_mine || ticket_other)) begin
          err_d = KeyErrTicketRequired;
        end
        else state_d = StRoot;
      end
      StRoot: if (ladder_done) state_d = StKek;
      StKek: if (ladder_done) state_d = StUnwrap;
      StUnwrap: if (kwp_done) state_d = StUnwrapCompare;
      StUnwrapCompare: if (walk_q == 6'd7) state_d = StUnwrapVerdict;
      StUnwrapVerdict: begin  // the one place where an unwrapping is judged
        state_d = StPresent;
        if (!match_flag || !match_count || !kwp_ok || !hash_done_q) begin
          err_d   = KeyErrKeyFailure;
          state_d = StZeroFailed;
        end
      end
      StPresent: if (!wipe_busy_i && !wipe_o) state_d = StLoaded;

      StAttLoad: begin
        state_d = StAttRoot;
        if (!lc_ok || !challenge_full || msg_word >= OwnerSlots) begin
          err_d   = lc_ok ? KeyErrMessageMalformed : KeyErrLifeCycle;
          state_d = StZeroFailed;
        end
      end
      StAttRoot: if (ladder_done) state_d = StAttKey;
      StAttKey:  if (ladder_done) state_d = StAttMac;
      StAttMac:  if (ladder_done) state_d = StStarted;

      StNonce: begin
        if (nonce_left_q == '0) state_d = StStarted;
        if (hung) begin  // no random numbers
          err_d   = KeyErrPufHealth;
          state_d = StZeroFailed;
        end
      end

      StTktLoad: begin
        if (walk_q == 6'(TicketBodyWords - 1)) state_d = StTktCheck;
        if (!lc_ok || !ticket_full) begin
          err_d   = lc_ok ? KeyErrMessageMalformed : KeyErrLifeCycle;
          state_d = StZeroFailed;
        end
      end
      StTktCheck: begin
        state_d = StTktRoot;
        if (msg_bad_q || msg_stale_q) begin
          err_d   = msg_bad_q ? KeyErrMessageMalformed : KeyErrTicketStale;
          state_d = StZeroFailed;
        end
      end
      StTktRoot:    if (ladder_done) state_d = StTktKey;
      StTktKey:     if (ladder_done) state_d = StTktMac;
      StTktMac:     if (ladder_done) state_d = StTktCompare;
      StTktCompare: if (walk_q == 6'd7) state_d = StTktVerdict;
      StTktVerdict: begin  // the one place where a ticket is judged
        state_d = StTktBurn;
        if (!match_flag || !match_count) begin
          err_d   = KeyErrKeyFailure;
          state_d = StZeroFailed;
        end
      end
      StTktBurn: begin
        if (!enter_q && fuse_floor_version_i >= tkt_version_q &&
            fuse_floor_epoch_i >= tkt_epoch_q) begin
          state_d = StStarted;
        end else if (walk_q == 6'd63) begin  // a fuse that does not burn
          err_d   = KeyErrPufHealth;
          state_d = StZeroFailed;
        end
      end

      default: begin  // SEC_CM: KEY.FSM.TRAP
        err_d   = KeyErrLockedOut;
        state_d = StZeroLocked;
      end
    endcase

    // The reading is judged where it ends, wherever decoding is by then.
    if (sampling && (hung || (puf_done_i && (puf_health_fail_i ||
                              rows_q + 7'(puf_resp_valid_i) != 7'(NumRows))))) begin
      err_d   = KeyErrPufHealth;
      strike  = 1'b1;
      state_d = StZeroFailed;
    end
    // The decoder answers in a fixed time; if it does not, something broke it.
    if (hung && decoding && !sampling) begin
      err_d   = KeyErrLockedOut;
      state_d = StZeroLocked;
    end
    if (cmd_valid_i && running && cmd_i != CmdZeroise) illegal = 1'b1;
    if (cmd_valid_i && zeroing && cmd_i != CmdZeroise && state_q != StZeroLocked) illegal = 1'b1;
    // A verdict that falls in the same cycle goes first.
    if (illegal && err_d == err_q) err_d = KeyErrIllegalCommand;

    if (cmd_valid_i && cmd_i == CmdZeroise && !zeroing && state_q != StLocked) begin
      err_d   = KeyErrNone;
      state_d = StZeroIdle;
    end
    if (strike && strikes_q[1]) begin
      err_d   = KeyErrLockedOut;
      state_d = StZeroLocked;
    end
    if (state_q != StZeroLocked && state_q != StLocked) begin
      if (fault) begin
        err_d   = KeyErrLockedOut;
        state_d = StZeroLocked;
      end else if (tamper_i) begin
        err_d   = KeyErrPageTampered;
        state_d = StZeroLocked;
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      enter_q       <= 1'b0;
      err_q         <= KeyErrNone;
      addr_q        <= '0;
      fresh_q       <= 1'b0;
      walk_q        <= '0;
      strikes_q     <= '0;
      puf_running_q <= 1'b0;
    end else begin
      state_q   <= state_d;
      enter_q   <= state_d != state_q;
      err_q     <= err_d;
      addr_q    <= addr_d;
      fresh_q   <= addr_d == addr_q;
      if (state_d != state_q) walk_q <= '0;
      else if (walk_q != 6'd63) walk_q <= walk_q + 6'd1;
      if (strike) strikes_q <= {strikes_q[1:0], 1'b1};
      if (puf_start_o) puf_running_q <= 1'b1;
      else if (puf_done_i) puf_running_q <= 1'b0;
    end
  end

  // ---- data ------------------------------------------------------------------------------------
  logic [31:0] resp_part;
  always_comb begin
    resp_part = '0;
    if (state_q == StMaskLoad) resp_part = resp_mem[row_q][32*part_q +: 32];
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      sampling_q  <= 1'b0;
      rows_q      <= '0;
      timer_q     <= '0;
      mask_sr_q   <= '0;
      resp_sr_q   <= '0;
      off_sr_q    <= '0;
      mask_left_q <= '0;
      off_left_q  <= '0;
      part_q      <= '0;
      row_q       <= '0;
      mask_word_q <= '0;
      off_word_q  <= '0;
      out_q       <= '0;
      cw_acc_q    <= '0;
      block_pos_q <= '0;
      dec_bad_q   <= 1'b0;
    end else if (scrub || state_q == StPufStart) begin
      sampling_q  <= puf_start_o;
      rows_q      <= '0;
      timer_q     <= '0;
      mask_sr_q   <= '0;
      resp_sr_q   <= '0;
      off_sr_q    <= '0;
      mask_left_q <= '0;
      off_left_q  <= '0;
      part_q      <= '0;
      row_q       <= '0;
      mask_word_q <= '0;
      off_word_q  <= '0;
      out_q       <= '0;
      cw_acc_q    <= '0;
      block_pos_q <= '0;
      if (state_q != StScrub) dec_bad_q <= 1'b0;
    end else begin
      if (puf_done_i) sampling_q <= 1'b0;
      if (state_q == StStarted) timer_q <= '0;
      else if ((state_q == StPufWait || state_q == StNonce || decoding) && !hung) begin
        timer_q <= timer_q + 32'd1;
      end
      if (resp_we) rows_q <= rows_q + 7'd1;
      if (state_q == StMaskLoad && state_d == StScan) begin
        mask_sr_q   <= helper_q;
        resp_sr_q   <= resp_part;
        mask_left_q <= 6'd32;
        mask_word_q <= mask_word_q + 8'd1;
        part_q      <= (part_q == 2'd2) ? 2'd0 : part_q + 2'd1;
        if (part_q == 2'd2) row_q <= row_q + 6'd1;
      end
      if (state_q == StOffsetLoad && state_d == StScan) begin
        off_sr_q   <= helper_q;
        off_left_q <= 6'd32;
        off_word_q <= off_word_q + 7'd1;
      end
      if (state_q == StScan && mask_left_q != '0 &&
          (!mask_sr_q[0] || (dec_in_valid && dec_in_ready))) begin
        mask_sr_q   <= mask_sr_q >> 1;
        resp_sr_q   <= resp_sr_q >> 1;
        mask_left_q <= mask_left_q - 6'd1;
        if (mask_sr_q[0]) begin
          off_sr_q   <= off_sr_q >> 1;
          off_left_q <= off_left_q - 6'd1;
        end
      end
      if (cw_we) begin
        cw_acc_q    <= cw_new;
        out_q       <= out_q + 11'd1;
        block_pos_q <= dec_out_last ? '0 : block_pos_q + 8'd1;
        if (dec_out_last && dec_fail) dec_bad_q <= 1'b1;
        if (dec_out_last != (block_pos_q == 8'(BlockBits - 1))) dec_bad_q <= 1'b1;
      end
    end
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      device_id_q  <= '0;
      weight_q     <= '0;
      helper_bad_q <= 1'b0;
      manifest_q   <= '0;
      hash_word_q  <= '0;
      hash_done_q  <= 1'b0;
      differ_q     <= 1'b1;
      equal_q      <= '0;
    end else begin
      if (accept_start) begin
        weight_q     <= '0;
        helper_bad_q <= 1'b0;
      end
      if (state_q == StHelperScan && fresh_q) begin
        if (helper_word_bad) helper_bad_q <= 1'b1;
        if (addr_q >= HelperIdWord && addr_q < HelperMarginWord) begin
          device_id_q <= {helper_q, device_id_q[127:32]};
        end
        if (addr_q >= HelperMaskWord && addr_q < HelperOffsetWord) begin
          weight_q <= weight_q + 13'(helper_popcount);
        end
      end
      // The words that are checked, hashed and handed out are these, not those in the window.
      // SEC_CM: KEY.MANIFEST.LATCHED
      if (state_q == StManifestLoad) begin
        manifest_q <= {manifest_mem[walk_q[4:0]], manifest_q[1023:32]};
      end else if (state_q == StUnwrap && ladder_valid && ladder_ready) begin
        manifest_q <= {manifest_q[31:0], manifest_q[1023:32]};
      end
      if (state_q != StUnwrap) begin
        hash_word_q <= '0;
        if (state_q == StKek || wipe_all) hash_done_q <= 1'b0;
      end else begin
        if (ladder_start || (ladder_valid && ladder_ready)) hash_word_q <= hash_word_q + 6'd1;
        if (ladder_done) hash_done_q <= 1'b1;
      end
      if (state_q == StMac || state_q == StUnwrap || state_q == StTktMac || wipe_all) begin
        differ_q <= wipe_all;
        equal_q  <= '0;
      end else if (comparing) begin
        if (cmp_x != cmp_y) differ_q <= 1'b1;
        if ((cmp_x ^ cmp_y) == '0) equal_q <= equal_q + 4'd1;
      end
    end
  end

  // ---- outputs ---------------------------------------------------------------------------------
  logic [127:0] key_q;
  logic [2:0]   wipe_q;
  logic [31:0]  cycles_q, start_cycles_q;
  logic [15:0]  unstable_q;
  logic         timing_q;
  logic         wipe_now;

  assign wipe_now = accept_unwrap ||
                    (!zeroing && (state_d == StZeroIdle || state_d == StZeroFailed ||
                                  state_d == StZeroLocked)) ||
                    (zeroing && state_q != StZeroLocked && state_d == StZeroLocked);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      key_q          <= '0;
      wipe_q         <= '0;
      cycles_q       <= '0;
      start_cycles_q <= '0;
      unstable_q     <= '0;
      timing_q       <= 1'b0;
    end else begin
      if (state_q == StPresent && state_d == StLoaded) key_q <= kwp_pt[127:0];
      else if (state_d != StLoaded) key_q <= '0;
      if (wipe_now) wipe_q <= 3'd4;
      else if (wipe_q != '0) wipe_q <= wipe_q - 3'd1;
      if (accept_start) begin
        timing_q <= 1'b1;
        cycles_q <= 32'd1;
      end else if (timing_q) begin
        cycles_q <= cycles_q + 32'd1;
        if (state_d == StStarted || state_d == StZeroIdle || state_d == StZeroFailed ||
            state_d == StZeroLocked) begin
          timing_q       <= 1'b0;
          start_cycles_q <= cycles_q + 32'd1;
        end
      end
      if (sampling && puf_done_i) unstable_q <= puf_unstable_i;
    end
  end

  assign busy_o           = !parked;
  assign err_o            = err_q;
  assign wipe_o           = wipe_q != '0 || state_q == StZeroLocked || state_q == StLocked;
  assign key_valid_o      = state_q == StLoaded;
  assign key_o            = key_valid_o ? key_q : '0;
  assign manifest_valid_o = state_q == StLoaded;
  assign manifest_o       = manifest_q;
  assign start_cycles_o   = start_cycles_q;
  assign unstable_o       = unstable_q;
  assign min_version_o    = fuse_min_version_i;
  assign lc_state_o       = fuse_lc_state_i;
  assign attest_o         = attest_q;
  assign nonce_o          = nonce_valid_q ? nonce_q : '0;
  assign runs_left_o      = ticket_ok ? tkt_runs_q : '0;
  assign time_left_o      = ticket_ok ? tkt_time_q : '0;

  always_comb begin
    unique case (state_q)
      StIdle:    state_o = KeyStateIdle;
      StStarted: state_o = KeyStateStarted;
      StLoaded:  state_o = KeyStateKeyLoaded;
      StFailed:  state_o = KeyStateFailed;
      StLocked:  state_o = KeyStateLocked;
      default:   state_o = KeyStateBusy;
    endcase
  end

`ifdef VERILATOR
  // verilator lint_off SYNCASYNCNET
  assert property (@(posedge clk_i) disable iff (!rst_ni) !key_valid_o |-> key_o == '0)
    else $error("%m: a key without key_valid_o");
  assert property (@(posedge clk_i) disable iff (!rst_ni) wipe_o |-> !key_valid_o)
    else $error("%m: a key is presented during a wipe");
  // verilator lint_on SYNCASYNCNET
`endif
endmodule
