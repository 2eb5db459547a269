// Sequencer: runs a whole model from one start.
//
//   check key and batch -> load descriptor pages -> for each descriptor: engine -> done
//
// Outputs are held until the last tag: the Output operation is legal only as the last one before
// End and starts only when every page of the run was asked for, verified and consumed. On any
// failure nothing more is released: bursts under way are dropped, the engine is stopped, what is
// left of the input stream is swallowed, one null beat (TKEEP = 0, TLAST = 1) ends the output
// stream, and the run ends with its status. The first failure is the one that is reported.
module lk_sequencer (
  input  logic          clk_i,
  input  logic          rst_ni,
  // start and end
  input  logic          start_i,          // level, as long as a run is wanted
  output logic          done_o,           // pulse
  output logic          running_o,
  input  logic [15:0]   batch_i,
  output logic [7:0]    status_o,         // run_status_e of the last run
  // what the key block vouches for
  input  logic          key_valid_i,
  input  logic          chain_ready_i,    // the cipher has its round keys
  input  logic          manifest_valid_i,
  input  lk_pkg::manifest_t manifest_i,
  input  logic          wipe_i,           // a wipe runs: stop
  input  logic          wipe_busy_i,
  output logic          tamper_o,         // pulse: a page failed authentication
  // lock chain
  output logic          flush_o,
  input  logic          chain_idle_i,
  input  logic          chain_settled_i,
  input  logic          chain_empty_i,
  input  logic          chain_fail_i,
  input  logic          chain_fail_spilled_i,
  input  logic          spill_bad_i,
  input  logic          run_key_fail_i,
  output logic          seal_o,           // level: a Spill runs
  output logic          unseal_o,         // level: a Load of the spill area runs
  input  logic          bus_error_i,
  // walker
  output logic          walker_clear_o,
  output logic          walker_boot_o,
  output logic          walker_run_o,
  input  logic          walker_finished_i,
  input  logic          walker_bad_i,
  // descriptor RAM
  output logic          desc_we_o,
  output logic [$clog2(2*lk_pkg::MaxDescs)-1:0] desc_waddr_o,
  output logic          desc_req_o,
  output logic [$clog2(lk_pkg::MaxDescs)-1:0]   desc_idx_o,
  input  logic          desc_valid_i,
  input  lk_pkg::desc_t desc_i,
  // descriptor pages are taken here, the others by the engine
  input  logic          pg_valid_i,
  input  logic          pg_last_i,
  output logic          pg_take_o,
  // engine
  output logic          eng_valid_o,
  input  logic          eng_ready_i,
  output lk_pkg::desc_t eng_desc_o,
  output logic          eng_abort_o,
  input  logic          eng_done_i,
  input  logic          eng_bad_desc_i,
  input  logic          eng_bad_input_i,
  output logic          eng_active_o,     // an operation runs in the engine
  output logic          release_o,        // it is the Output, which was held until it may
  // streams
  input  logic          in_last_taken_i,  // pulse: the input stream's last beat was taken
  output logic          in_drain_o,       // swallow the rest of the input stream
  output logic          null_valid_o,     // the null beat that ends a failed run's output
  input  logic          null_ready_i
);
  import lk_pkg::*;

  // SEC_CM: CTRL.FSM_SPARSE (Hamming distance 3; anything else traps)
  typedef enum logic [6:0] {
    StIdle   = 7'b0000000,
    StCheck  = 7'b0000111,
    StLoad   = 7'b0011001,
    StRead   = 7'b0011110,
    StIssue  = 7'b0101010,
    StWait   = 7'b0101101,
    StFlush  = 7'b0110011,
    StDrain  = 7'b0110100,
    StNull   = 7'b1001011,
    StDone   = 7'b1001100
  } state_e;

  state_e      state_q;
  run_status_e status_q;
  desc_t       desc_q;
  logic [$clog2(MaxDescs)-1:0]   idx_q;
  logic [$clog2(2*MaxDescs)-1:0] waddr_q;
  logic [31:0] pages_left_q;
  logic        in_seen_q;       // this run's last input beat was taken
  logic        bus_error_q;
  logic        engine_off_q;    // the engine has confirmed the abort, or had nothing to do
  logic        active_q;
  logic [11:0] patience_q;
  logic        last_desc, next_is_last;

  assign last_desc    = 32'(idx_q) + 32'd1 == manifest_i.num_descs;
  assign next_is_last = 32'(idx_q) + 32'd2 == manifest_i.num_descs;

  // --- What can go wrong while a run is under way ------------------------------------------------
  logic        in_run, fail;
  run_status_e why;
  assign in_run = state_q == StLoad || state_q == StRead || state_q == StIssue || state_q == StWait;
  always_comb begin
    fail = 1'b1;
    why  = RunStatusOk;
    if (wipe_i)                                  why = RunStatusWiped;
    else if (bus_error_q || bus_error_i)         why = RunStatusBusError;
    else if (chain_fail_i)                       why = chain_fail_spilled_i
                                                     ? RunStatusSpillTampered
                                                     : RunStatusPageTampered;
    else if (run_key_fail_i)                     why = RunStatusNoRunKey;
    else if (walker_bad_i || spill_bad_i)        why = RunStatusBadDescriptor;
    else if (eng_done_i && eng_bad_desc_i)       why = RunStatusBadDescriptor;
    else if (eng_done_i && eng_bad_input_i)      why = RunStatusBadInput;
    else                                         fail = 1'b0;
  end
  // A bus error spoils the page it hit, so its failed tag says nothing about tampering.
  assign tamper_o = in_run && fail &&
                    (why == RunStatusPageTampered || why == RunStatusSpillTampered);

  // --- Descriptor legality that the engine cannot judge ------------------------------------------
  logic desc_ok;
  always_comb begin
    unique case (desc_i.op)
      OpInput, OpMatMul, OpMaxPool, OpAdd, OpDepthwise,
      OpAvgPool, OpMul, OpTable,
      OpProduct, OpSoftmax,
      OpLayerNorm, OpLoad:       desc_ok = !last_desc;
      OpSpill:                   desc_ok = !last_desc && manifest_i.spill_pages != '0;
      OpOutput:                  desc_ok = next_is_last;  // SEC_CM: RUN.OUTPUT_LAST
      OpEnd:                     desc_ok = last_desc;
      default:                   desc_ok = 1'b0;
    endcase
  end

  logic check_ok;  // the configuration of a start request is acceptable
  logic issue_ok;
  // SEC_CM: RUN.OUTPUT_HOLD
  assign issue_ok = desc_q.op == OpSpill  ? chain_settled_i :
                    desc_q.op != OpOutput || (walker_finished_i && chain_empty_i && !chain_fail_i);
  assign seal_o   = state_q == StWait && desc_q.op == OpSpill;
  assign unseal_o = state_q == StWait && desc_q.op == OpLoad && desc_q.spilled;

  assign running_o      = state_q != StIdle;
  assign status_o       = status_q;
  assign done_o         = state_q == StDone;
  assign flush_o        = state_q == StFlush;
  assign walker_clear_o = state_q == StFlush || state_q == StDone;
  assign walker_boot_o  = state_q == StCheck && check_ok;
  assign walker_run_o   = state_q == StLoad && pg_take_o && pg_last_i && pages_left_q == 32'd1;
  assign desc_we_o      = pg_take_o;
  assign desc_waddr_o   = waddr_q;
  assign pg_take_o      = state_q == StLoad && pg_valid_i;
  assign desc_req_o     = state_q == StRead;
  assign desc_idx_o     = idx_q;
  assign eng_valid_o    = state_q == StIssue && issue_ok && !fail;
  assign eng_desc_o     = desc_q;
  assign eng_abort_o    = state_q == StFlush;
  assign eng_active_o   = active_q;
  assign release_o      = state_q == StWait && desc_q.op == OpOutput;
  assign in_drain_o     = state_q == StDrain;
  assign null_valid_o   = state_q == StNull;

  // Just the pages that hold the descriptors: none beyond the RAM, none that an older run left
  // there.
  localparam int unsigned DescsPerPage = PageBytes / DescBytes;
  logic [31:0] desc_pages;
  assign desc_pages = (manifest_i.num_descs + DescsPerPage - 1) / DescsPerPage;

  run_status_e check_why;
  always_comb begin
    check_ok  = 1'b0;
    check_why = RunStatusOk;
    if (!key_valid_i || !chain_ready_i || !manifest_valid_i) check_why = RunStatusNoKey;
    else if (batch_i == '0 || 32'(batch_i) > manifest_i.max_batch) check_why = RunStatusBadBatch;
    else if (manifest_i.num_descs < 32'd2 || manifest_i.num_descs > MaxDescs
             || manifest_i.desc_pages != desc_pages || manifest_i.spill_pages > MaxSpillPages) begin
      check_why = RunStatusBadDescriptor;
    end else check_ok = 1'b1;
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q      <= StIdle;
      status_q     <= RunStatusOk;
      desc_q       <= desc_t'('0);
      idx_q        <= '0;
      waddr_q      <= '0;
      pages_left_q <= '0;
      in_seen_q    <= 1'b0;
      bus_error_q  <= 1'b0;
      engine_off_q <= 1'b0;
      active_q     <= 1'b0;
      patience_q   <= '0;
    end else begin
      if (in_last_taken_i) in_seen_q <= 1'b1;
      if (bus_error_i) bus_error_q <= 1'b1;
      if (eng_done_i) active_q <= 1'b0;

      unique case (state_q)
        // A start waits for a wipe's walkers. A locked key block holds the wipe for ever: then the
        // start is taken and ends for want of a key.
        StIdle: if (start_i && (wipe_i || !wipe_busy_i)) begin
          in_seen_q   <= 1'b0;
          bus_error_q <= 1'b0;
          status_q    <= RunStatusOk;
          // Round keys may still be expanding after an unwrap; a cipher that never gets there
          // counts as one without a key.
          patience_q <= patience_q + 1'b1;
          if (!key_valid_i || chain_ready_i || patience_q == '1) begin
            patience_q <= '0;
            state_q    <= StCheck;
          end
        end

        StCheck: begin
          idx_q        <= '0;
          waddr_q      <= '0;
          pages_left_q <= manifest_i.desc_pages;
          if (check_ok) begin
            state_q <= StLoad;
          end else begin
            status_q <= check_why;
            state_q  <= StFlush;
          end
        end

        StLoad: if (pg_take_o) begin
          waddr_q <= waddr_q + 1'b1;
          if (pg_last_i) begin
            pages_left_q <= pages_left_q - 1'b1;
            if (pages_left_q == 32'd1) state_q <= StRead;
          end
        end

        StRead: if (desc_valid_i) begin
          desc_q <= desc_i;
          if (!desc_ok) begin
            status_q <= RunStatusBadDescriptor;
            state_q  <= StFlush;
          end else begin
            // The run ends when the last burst of a Spill was answered.
            state_q <= desc_i.op != OpEnd ? StIssue : chain_settled_i ? StDone : StRead;
          end
        end

        StIssue: if (eng_valid_o && eng_ready_i) begin
          active_q <= 1'b1;
          state_q  <= StWait;
        end

        StWait: if (eng_done_i) begin
          idx_q   <= idx_q + 1'b1;
          state_q <= StRead;
        end

        // Wait for the bus and the engine to come to rest. A wipe goes on beside it.
        StFlush: begin
          engine_off_q <= engine_off_q || !active_q || eng_done_i;
          if (chain_idle_i && (engine_off_q || !active_q)) begin
            state_q <= in_seen_q ? StNull : StDrain;
          end
        end

        StDrain: if (in_seen_q || in_last_taken_i) state_q <= StNull;

        StNull: if (null_ready_i) state_q <= StDone;

        StDone: begin
          engine_off_q <= 1'b0;
          state_q      <= StIdle;
        end

        default: begin  // an illegal code: release nothing
          status_q <= RunStatusWiped;
          state_q  <= StFlush;
        end
      endcase

      // SEC_CM: RUN.FAIL_CLOSED
      if (in_run && fail) begin
        status_q <= why;
        state_q  <= StFlush;
        // An operation handed over in this very cycle counts as running.
        if (state_q == StIssue && eng_valid_o && eng_ready_i) active_q <= 1'b1;
      end
    end
  end
endmodule
